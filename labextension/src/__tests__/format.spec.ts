import { readFileSync } from 'fs';
import { join } from 'path';

import { nullTranslator } from '@jupyterlab/translation';
import { expect, it } from 'vitest';

import {
  formatAge,
  displayName,
  progressText,
  viewCode,
  chatCode
} from '../format';
import {
  formatBytes,
  formatCount,
  formatDuration,
  formatNumber,
  formatRate,
  formatShare,
  withUnit
} from '../numbers';
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
])('formats an age of %d seconds as %s', (seconds, text) => {
  expect(formatAge(seconds, trans)).toBe(text);
});

it('shows state and steps', () => {
  expect(progressText(run('a'), trans)).toBe('running 93/141');
  expect(progressText(run('a', { state: 'queued', total: null }), trans)).toBe(
    'queued'
  );
});

it('returns the code of a chat with a run beside its base, or with several runs', () => {
  expect(chatCode(['a'])).toBe('llf.Chat("a@base", "a")');
  expect(chatCode(['a'], 75)).toBe('llf.Chat("a@base", "a@75")');
  expect(chatCode(['a', 'b'])).toBe('llf.Chat("a", "b")');
});

it('returns the code that shows a run, or several side by side', () => {
  expect(viewCode(['20261124-142530-demo'])).toBe(
    'llf.Monitor("20261124-142530-demo")'
  );
  expect(viewCode(['a', 'b'])).toBe('llf.Compare(["a", "b"])');
});

const CASES: Record<string, [number | string, string][]> = JSON.parse(
  readFileSync(join(__dirname, '../../../tests/number_formats.json'), 'utf8')
);
const WRITERS: Record<string, (value: number) => string> = {
  number: formatNumber,
  rate: formatRate,
  count: formatCount,
  bytes: formatBytes,
  duration: formatDuration,
  share: formatShare
};

it.each(
  Object.entries(CASES).flatMap(([kind, cases]) =>
    cases.map(([value, text]) => [kind, value, text] as const)
  )
)('writes a %s, %s, as %s, as Python does', (kind, value, text) => {
  expect(WRITERS[kind](value as number)).toBe(text);
});

it('shows an unknown number as a dash', () => {
  expect([
    formatNumber(null),
    formatRate(undefined),
    formatCount(null)
  ]).toEqual(['–', '–', '–']);
});

it.each([
  ['sums', 'sums'],
  ['a\n\tb  c', 'a b c'],
  ['\u202eexe.png\u2066', 'exe.png'],
  ['👩‍🚀', '👩‍🚀'],
  ['🦙'.repeat(61), `${'🦙'.repeat(24)}…${'🦙'.repeat(24)}`],
  [`${'a'.repeat(60)} lr 3e-3`, `${'a'.repeat(24)}…${'a'.repeat(16)} lr 3e-3`],
  ['\u202e \u0007', 'an-id']
])('shortens %j to %j for use in a sentence', (name, text) => {
  expect(displayName({ id: 'an-id', name })).toBe(text);
});

it('writes one of a unit in the singular', () => {
  expect([0, 1, 1200].map(count => withUnit(count, 'token'))).toEqual([
    '0 tokens',
    '1 token',
    '1,200 tokens'
  ]);
});
