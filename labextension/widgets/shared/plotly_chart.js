// A Plotly figure in the page.

import Plotly from 'plotly.js-basic-dist-min';

import { h } from './dom.js';

/** @import { Figure } from 'plotly.js-basic-dist-min' */

/** What `llf_widgets.plotting.plotly_layout` calls an array's numbers. */
const ARRAYS = { f4: Float32Array, i4: Int32Array };

/**
 * Returns the JSON of a figure with typed arrays in the place of `{dtype, bdata}`.
 * @param {any} value
 * @returns {any}
 */
export function decodeArrays(value) {
  if (Array.isArray(value)) {
    return value.map(decodeArrays);
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
    Object.entries(value).map(([key, inner]) => [key, decodeArrays(inner)])
  );
}

/**
 * Creates a chart that shows the last figure passed to `show`. The reader's zoom is kept.
 * @param {string} label for screen readers
 * @param {(point: {trace: string, x: number, y: number}) => void} [onPoint] called with a clicked point
 */
export function plotlyChart(label, onPoint) {
  const box = h('div', {
    class: 'llf-Chart',
    role: 'group',
    'aria-label': label
  });
  /** @type {Figure | null} */
  let pending = null;
  let width = 0;
  let drawn = false;

  /** Draws the pending figure once the box has a width, because Plotly measures the box. */
  function draw() {
    if (!pending || !box.clientWidth) {
      return;
    }
    width = box.clientWidth;
    const { data, layout, config } = pending;
    Plotly.react(
      box,
      data,
      { ...layout, width },
      { displaylogo: false, ...config }
    );
    pending = null;
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
    if (pending) {
      draw();
    } else if (drawn && box.clientWidth && box.clientWidth !== width) {
      width = box.clientWidth;
      Plotly.relayout(box, { width });
    }
  });
  sizes.observe(box);

  return {
    box,
    /** @param {Figure} figure as `llf_widgets.plotting.plotly_layout` makes it */
    show(figure) {
      pending = decodeArrays(figure);
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
