// One Plotly figure in the page.

import Plotly from 'plotly.js-basic-dist-min';

import { h } from './dom.js';

/** @import { Figure } from 'plotly.js-basic-dist-min' */

/** What `llf_widgets.plotting.packed_arrays` calls an array's numbers. */
const ARRAYS = { f4: Float32Array, i4: Int32Array };

/**
 * A figure's JSON with typed arrays in the place of `{dtype, bdata}`.
 * @param {any} value
 * @returns {any}
 */
export function unpacked(value) {
  if (Array.isArray(value)) {
    return value.map(unpacked);
  }
  if (value === null || typeof value !== 'object') {
    return value;
  }
  if (typeof value.bdata === 'string') {
    const bytes = Uint8Array.from(atob(value.bdata), letter =>
      letter.charCodeAt(0)
    );
    return new ARRAYS[/** @type {'f4' | 'i4'} */ (value.dtype)](bytes.buffer);
  }
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [key, unpacked(inner)])
  );
}

/**
 * A chart that always shows the last figure that it was given. What a reader has zoomed into stays.
 * @param {string} label for screen readers
 * @param {(point: {trace: string, x: number, y: number}) => void} [onPoint] called with a point that is clicked
 */
export function plotlyChart(label, onPoint) {
  const box = h('div', {
    class: 'llf-Chart',
    role: 'group',
    'aria-label': label
  });
  /** @type {Figure | null} */
  let wanted = null;
  let width = 0;
  let drawn = false;

  /** Plotly measures the box, so nothing is drawn before the box has a width. */
  function draw() {
    if (!wanted || !box.clientWidth) {
      return;
    }
    width = box.clientWidth;
    const { data, layout, config } = wanted;
    Plotly.react(
      box,
      data,
      { ...layout, width },
      { displaylogo: false, ...config }
    );
    wanted = null;
    if (drawn || !onPoint) {
      drawn = true;
      return;
    }
    drawn = true;
    /** @type {any} */ (box).on('plotly_click', (/** @type {any} */ event) => {
      const [point] = event.points;
      if (point) {
        onPoint({
          trace: point.data.name,
          x: Number(point.x),
          y: Number(point.y)
        });
      }
    });
  }

  const sizes = new ResizeObserver(() => {
    if (wanted) {
      draw();
    } else if (drawn && box.clientWidth && box.clientWidth !== width) {
      width = box.clientWidth;
      Plotly.relayout(box, { width });
    }
  });
  sizes.observe(box);

  return {
    box,
    /** @param {Figure} figure as `llf_widgets.plotting.packed_arrays` makes it */
    show(figure) {
      wanted = unpacked(figure);
      draw();
    },
    close() {
      sizes.disconnect();
      if (drawn) {
        Plotly.purge(box);
      }
    }
  };
}
