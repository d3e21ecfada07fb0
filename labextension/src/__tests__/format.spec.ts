import { readFileSync } from 'fs';
import { join } from 'path';

import { nullTranslator } from '@jupyterlab/translation';
import { expect, it } from 'vitest';

import { age, called, stepText, viewCode } from '../format';
import { bytes, count, duration, quantity, rate, share } from '../numbers';
import { run } from './runs';

const trans = nullTranslator.load('llf');

it.each([
  [-5, '0 s'],
  [0, '0 s'],
  [59.9, '59 s'],
  [60, '1 min'],
  [3599, '59 min'],
  [3600, '1 h'],
  [86_399, '23 h'],
  [86_400, '1 d'],
  [1_000_000, '11 d']
])('says %d seconds as %s', (seconds, text) => {
  expect(age(seconds, trans)).toBe(text);
});

it('names state and steps', () => {
  expect(stepText(run('a'), trans)).toBe('running 93/141');
  expect(stepText(run('a', { state: 'created', total: null }), trans)).toBe(
    'created'
  );
});

it('writes the line that shows a run, or several side by side', () => {
  expect(viewCode(['20261124-142530-demo'])).toBe(
    'llf.Monitor("20261124-142530-demo")'
  );
  expect(viewCode(['a', 'b'])).toBe('llf.Compare(["a", "b"])');
});

const CASES: Record<string, [number | string, string][]> = JSON.parse(
  readFileSync(join(__dirname, '../../../tests/number_formats.json'), 'utf8')
);
const WRITERS: Record<string, (value: number) => string> = {
  number: quantity,
  rate,
  count,
  bytes,
  duration,
  share
};

it.each(
  Object.entries(CASES).flatMap(([kind, cases]) =>
    cases.map(([value, text]) => [kind, value, text] as const)
  )
)('writes a %s, %s, as %s, as Python does', (kind, value, text) => {
  expect(WRITERS[kind](value as number)).toBe(text);
});

it('writes what is not known as a dash', () => {
  expect([quantity(null), rate(undefined), count(null)]).toEqual([
    '–',
    '–',
    '–'
  ]);
});

it.each([
  ['sums', 'sums'],
  ['a\n\tb  c', 'a b c'],
  ['\u202eexe.png\u2066', 'exe.png'],
  ['👩‍🚀', '👩‍🚀'],
  ['🦙'.repeat(61), `${'🦙'.repeat(24)}…${'🦙'.repeat(24)}`],
  [`${'a'.repeat(60)} lr 3e-3`, `${'a'.repeat(24)}…${'a'.repeat(16)} lr 3e-3`],
  ['\u202e \u0007', 'an-id']
])('calls %j in a sentence %j', (name, text) => {
  expect(called({ id: 'an-id', name })).toBe(text);
});
