// The charts of a run with their controls: smoothing, log scale, more charts; a sentence while nothing is logged.
// To add a chart, add a row to `CHARTS` in `llf_core/runs/charts.py`.

import { plotlyChart } from '../shared/plotly_chart.js';
import { h, reveal, setText } from '../shared/dom.js';

/** @import { Feed } from './feed.js' */

const NARROW = 700; // pixels below which the charts stand in fewer columns
const WINDOWS = [0, 1, 5, 10, 25, 50, 100, 250]; // steps that the smoothed lines are a mean of; 0 chooses

/** @param {Feed} feed */
export function chartsSection(feed) {
  const chart = plotlyChart('Curves of the run', ({ x }) => ask(x));
  const none = h('p', { class: 'llf-2 llf-Charts-none' });
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
    h('label', { class: 'llf-2' }, 'Smoothing ', smoothing),
    h('label', { class: 'llf-2' }, log, ' Log scale')
  );
  const more = h('button', {
    type: 'button',
    onclick: () => feed.setOptions({ details: !feed.options().details })
  });
  const titles = h('span', { class: 'llf-2 llf-small' });
  const row = h('div', { class: 'llf-row llf-Monitor-more' }, more, titles);
  const rows = h('div', { class: 'llf-row llf-Charts-rows', role: 'status' });
  const box = h(
    'section',
    { class: 'llf-Charts', 'aria-label': 'Charts' },
    tools,
    none,
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
    none.hidden = !empty;
    setText(
      none,
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
    more.setAttribute('aria-expanded', String(open));
    setText(
      more,
      open ? 'Show fewer charts' : `Show ${leftOut.length} more charts`
    );
    setText(titles, open ? '' : leftOut.join(' · '));
  }

  /** The large chart with a logarithmic axis; what is not above 0 has no place on it. */
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

  /** A point was clicked: the rows of its step are one more click away. */
  function ask(/** @type {number} */ step) {
    rows.replaceChildren(
      h('span', {}, `Step ${step.toLocaleString('en')}: `),
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
    const narrow = box.clientWidth < NARROW;
    if (box.clientWidth && narrow !== feed.options().narrow) {
      feed.setOptions({ narrow });
    }
  });
  sizes.observe(box);
  feed.on('charts', draw);
  feed.on('head', () => {
    if (!none.hidden) {
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
 * Shows the rows behind the curve: below the charts where a kernel has this view, else in a cell.
 * @param {Feed} feed
 * @param {HTMLElement} said where to say what becomes of it
 * @param {number} [step] of one step; else those that stand out
 */
export async function showExamples(feed, said, step) {
  const code = `llf.Examples(${JSON.stringify(feed.run)})${step === undefined ? '' : `.show_step(${step})`}`;
  if (feed.hasKernel) {
    const { text } = await feed.requestKernel(
      'examples',
      step === undefined ? {} : { step },
      () =>
        setText(
          said,
          'The request waits in the kernel until the running cell ends.'
        )
    );
    setText(said, text);
    reveal(() => said.closest('.llf-Monitor')?.querySelector('.llf-Examples'));
  } else if (feed.host?.runCell) {
    setText(said, 'The rows are in a cell below.');
    await feed.host.runCell(code);
  } else {
    setText(said, `Run this in a cell: ${code}`);
  }
}
