import { expect, it } from 'vitest';

import { decodeArrays } from '../shared/plotly_chart.js';

const base64 = (bytes: ArrayBuffer): string =>
  btoa(String.fromCharCode(...new Uint8Array(bytes)));

it('reads packed arrays, and keeps everything else', () => {
  const x = new Int32Array([1, 2 ** 31 - 1]);
  const y = new Float32Array([0.5, NaN]);
  const figure = decodeArrays({
    data: [
      {
        x: { dtype: 'i4', bdata: base64(x.buffer) },
        y: { dtype: 'f4', bdata: base64(y.buffer) },
        name: 'loss'
      }
    ],
    layout: { shapes: [null, 1, 'a'] }
  });
  expect(figure).toEqual({
    data: [{ x, y, name: 'loss' }],
    layout: { shapes: [null, 1, 'a'] }
  });
});
