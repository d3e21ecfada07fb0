import { nullTranslator } from '@jupyterlab/translation';
import { expect, it } from 'vitest';

import { branchCode } from '../branch_dialog';

const trans = nullTranslator.load('llf');
const nothing = { step: '120', learning_rate: '', max_steps: '' };

it.each(['5e-5', '1E-4', '.001', '0.5', '1', '2.5e+0'])(
  'writes the learning rate %s as it was typed',
  rate => {
    const code = branchCode('a', { ...nothing, learning_rate: rate }, trans);
    expect(code).toBe(
      `run = llf.attach("a").branch(120, learning_rate=${rate})\nllf.Monitor(run)`
    );
  }
);

it.each([
  'fast',
  '1e',
  '-1',
  '0x1',
  '1,5',
  '__import__("os")',
  '007',
  '0',
  '.'
])('refuses the learning rate %s', rate => {
  const typed = { ...nothing, learning_rate: rate };
  expect(() => branchCode('a', typed, trans)).toThrow('Expected a number');
});

it.each(['3.5', '120', '0300', '1e3', '9'.repeat(12)])(
  'refuses to end at step %s',
  end => {
    const typed = { ...nothing, max_steps: end };
    expect(() => branchCode('a', typed, trans)).toThrow('integer above 120');
  }
);

it('changes nothing if all fields are empty', () => {
  expect(branchCode('a', nothing, trans)).toContain('.branch(120)\n');
});
