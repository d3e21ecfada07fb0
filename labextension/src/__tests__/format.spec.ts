import { nullTranslator } from '@jupyterlab/translation';
import { expect, it } from 'vitest';

import { age, monitorCode, stepText } from '../format';
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

it('writes the line that shows a run', () => {
  expect(monitorCode('20261124-142530-demo')).toBe(
    'llf.Monitor("20261124-142530-demo")'
  );
});
