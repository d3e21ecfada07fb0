import { nullTranslator } from '@jupyterlab/translation';
import { expect, it } from 'vitest';

import {
  age,
  bytes,
  called,
  duration,
  short,
  stepText,
  viewCode
} from '../format';
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

it.each([
  [12, '0:12'],
  [430, '7:10'],
  [7391, '2:03:11']
])('says %d seconds as %s', (seconds, text) => {
  expect(duration(seconds)).toBe(text);
});

it.each([
  [9_800_000, '9.80 MB'],
  [269_000_000, '269 MB'],
  [1_610_000_000, '1.61 GB'],
  [83_900, '83.9 kB'],
  [999_700, '1,000 kB'],
  [12, '12 B']
])('says %d bytes as %s', (count, text) => {
  expect(bytes(count)).toBe(text);
});

it.each([
  [1.2849, '1.28'],
  [0, '0.00'],
  [3.1e-5, '3.1e-5'],
  [1071.4, '1,071'],
  [999.7, '1,000'],
  [0.0123, '0.0123'],
  [31.4, '31.4'],
  [null, '–']
])('writes %d as %s', (value, text) => {
  expect(short(value)).toBe(text);
});

it.each([
  ['sums', 'sums'],
  ['a\n\tb  c', 'a b c'],
  ['\u202eexe.png\u2066', 'exe.png'],
  ['👩‍🚀', '👩‍🚀'],
  ['🦙'.repeat(61), `${'🦙'.repeat(60)}…`],
  ['\u202e \u0007', 'an-id']
])('calls %j in a sentence %j', (name, text) => {
  expect(called({ id: 'an-id', name })).toBe(text);
});
