import { nullTranslator } from '@jupyterlab/translation';
import * as React from 'react';
import { renderToStaticMarkup } from 'react-dom/server';
import { expect, it } from 'vitest';

import type { IChart } from '../api';
import { LargeChart } from '../large_chart';

const trans = nullTranslator.load('llf');
const draw = (lines: IChart['lines']): string =>
  renderToStaticMarkup(
    <LargeChart
      chart={{ title: 'Loss', form: 'number', lines }}
      trans={trans}
    />
  );

it('says which values a curve has, also of one that is flat', () => {
  expect(draw({ loss: [[1, 2], [2, 1]] })).toContain(
    'Loss from 2.000 to 1.000 over 2 steps'
  ); // prettier-ignore
  expect(draw({ loss: [[1, 2], [1, 1]] })).toContain(
    'Loss from 1.000 to 1.000 over 2 steps'
  ); // prettier-ignore
});

it('draws nothing before a second step', () => {
  expect(draw({ loss: [[1], [2]] })).toBe('');
});
