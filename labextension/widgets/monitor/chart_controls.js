// The charts of a run with their controls: smoothing, log scale, more charts; a sentence while nothing is logged.
// To add a chart, add a row to `CHARTS` in `llf_core/runs/charts.py`.

import { plotlyChart } from '../shared/plotly_chart.js';
import { h, scrollToWhenReady, setText } from '../shared/dom.js';
import { runInPageCell } from '../shared/page_cell.js';
import { formatCount, withUnit } from '../../src/numbers';

/** @import { Feed } from './feed.js' */

const NARROW_WIDTH = 700; // pixels below which the charts have fewer columns
const WINDOWS = [0, 1, 5, 10, 25, 50, 100, 250]; // steps of the smoothing mean; 0: automatic

/** Draws the charts and their controls. @param {Feed} feed */
export function chartsSection(feed) {
  const chart = plotlyChart('Curves of the run', ({ x }) => showStepLink(x));
  const emptyText = h('p', { class: 'llf-secondary llf-Charts-none' });
  const smoothing = h(
    'select',
    {
      'aria-label': 'Smoothing',
      onchange: () => {
        feed.setOptions({ window: Number(smoothing.value) });
      }
    },
    ...WINDOWS.map(steps =>
      h(
        'option',
        { value: String(steps) },
        steps === 0 ? 'automatic' : steps === 1 ? 'none' : `${steps} steps`
      )
    )
  );
  const log = h('input', { type: 'checkbox', onchange: draw });
  const tools = h(
    'div',
    { class: 'llf-row llf-Charts-tools' },
    h('label', { class: 'llf-secondary' }, 'Smoothing ', smoothing),
    h('label', { class: 'llf-secondary' }, log, ' Log scale')
  );
  const moreButton = h('button', {
    type: 'button',
    onclick: () => feed.setOptions({ details: !feed.options().details })
  });
  const titles = h('span', { class: 'llf-secondary llf-small' });
  const row = h(
    'div',
    { class: 'llf-row llf-Monitor-more' },
    moreButton,
    titles
  );
  const rows = h('div', { class: 'llf-row llf-Charts-rows', role: 'status' });
  const box = h(
    'section',
    { class: 'llf-Charts', 'aria-label': 'Charts' },
    tools,
    emptyText,
    rows,
    chart.box,
    row
  );

  function draw() {
    const {
      figure,
      left_out: leftOut = [],
      points = 0,
      window = 0
    } = feed.get('charts') ?? {};
    const head = feed.get('head') ?? {};
    const empty = !points;
    for (const part of [chart.box, tools]) {
      part.hidden = empty;
    }
    emptyText.hidden = !empty;
    setText(
      emptyText,
      head.live
        ? 'Charts appear after the first logged step.'
        : head.state
          ? 'This run has not logged any steps.'
          : 'Reading the run…'
    );
    setText(
      /** @type {HTMLElement} */ (smoothing.options[0]),
      window ? `automatic: ${window} steps` : 'automatic'
    );
    if (!empty) {
      chart.show(log.checked ? onLogScale(figure) : figure);
    }
    const open = feed.options().details;
    row.hidden = empty || (!open && !leftOut.length);
    moreButton.setAttribute('aria-expanded', String(open));
    setText(
      moreButton,
      open
        ? 'Show fewer charts'
        : `Show ${withUnit(leftOut.length, 'more chart')}`
    );
    setText(titles, open ? '' : leftOut.join(' · '));
  }

  /** Returns the figure with a logarithmic axis of the large chart, which shows only values above 0. */
  function onLogScale(/** @type {any} */ figure) {
    const [large] = figure.layout.meta.charts;
    const axis = {
      ...figure.layout[large.yaxis],
      type: 'log',
      nticks: 6,
      autorange: true
    };
    delete axis.range;
    return {
      ...figure,
      layout: { ...figure.layout, [large.yaxis]: axis, uirevision: 'log' }
    };
  }

  /** Shows a link to the rows of the step whose point was clicked. */
  function showStepLink(/** @type {number} */ step) {
    rows.replaceChildren(
      h('span', {}, `Step ${formatCount(step)}: `),
      h(
        'button',
        {
          type: 'button',
          class: 'llf-link',
          onclick: () => void showExamples(feed, rows, step)
        },
        'Show rows'
      )
    );
  }

  const sizes = new ResizeObserver(() => {
    const narrow = box.clientWidth < NARROW_WIDTH;
    if (box.clientWidth && narrow !== feed.options().narrow) {
      feed.setOptions({ narrow });
    }
  });
  sizes.observe(box);
  feed.on('charts', draw);
  feed.on('head', () => {
    if (!emptyText.hidden) {
      draw();
    }
  });
  draw();
  return {
    box,
    close: () => {
      sizes.disconnect();
      chart.close();
    }
  };
}

/**
 * Shows the examples behind the curve: below the charts if a kernel has this view, otherwise in a cell.
 * @param {Feed} feed
 * @param {HTMLElement} status shows the outcome
 * @param {number} [step] shows the examples of one step; without it, outliers
 */
export async function showExamples(feed, status, step) {
  const code = `llf.Examples(${JSON.stringify(feed.run)})${step === undefined ? '' : `.show_step(${step})`}`;
  if (feed.hasKernel) {
    setText(status, 'Requesting the rows…');
    const { text } = await feed.requestKernel(
      'examples',
      step === undefined ? {} : { step },
      () =>
        setText(
          status,
          'The request waits in the kernel until the running cell ends.'
        )
    );
    setText(status, text);
    scrollToWhenReady(() =>
      status.closest('.llf-Monitor')?.querySelector('.llf-Examples')
    );
  } else {
    setText(status, 'Opening the rows in a cell…');
    const problem = await runInPageCell(code, feed.page);
    setText(status, problem || 'The rows are in a cell below.');
  }
}
