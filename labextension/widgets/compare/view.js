// Runs side by side: a table, curves over a selectable x axis, completions of the same prompts.

import '../shared/llf.css';
import '../shared/plotly_colors.css';
import './compare.css';
import { plotlyChart } from '../shared/plotly_chart.js';
import { drawIfChanged, h, placeChildren, setText } from '../shared/dom.js';
import { initialize } from '../shared/initialize.js';

/** @import { Context } from '../shared/model' */

let viewCount = 0;
const X_AXES = { step: 'step', tokens: 'tokens', time: 'time' };
const AUTOMATIC = 'automatic';
/** Columns of a table that fits beside the chart. */
const BESIDE = 4;

/** @typedef {{label: string, cells: string[], best: number[], code: boolean}} TableRow */
/** @typedef {{title: string, note: string, rows: TableRow[]}} TableSection */
/** @typedef {{title: string, help: string, log: boolean, lines: [string, string][]}} Curves */
/** @typedef {{name: string, label: string, id: string, title: string, state: string, status_text: string, tone: number, dash: string}} ComparedRun a run, or a group of runs */

/** Draws the comparison. The kernel computes table and figure. @param {Context} context */
function render({ model, el }) {
  const idPrefix = `llf-compare-${++viewCount}`;
  const set = (/** @type {string} */ name, /** @type {any} */ value) => {
    model.set(name, value);
    model.save_changes();
  };
  const add = h('select', {
    id: `${idPrefix}-add`,
    onchange: () => {
      if (add.value) {
        model.send({ type: 'add', run: add.value });
      }
      add.value = '';
    }
  });
  const curve = h('select', {
    id: `${idPrefix}-curve`,
    onchange: () => {
      set('curve', curve.value);
    }
  });
  const help = h('p', { class: 'llf-secondary llf-small' });
  const xAxis = h(
    'select',
    {
      id: `${idPrefix}-x-axis`,
      onchange: () => {
        set('x_axis', xAxis.value);
      }
    },
    ...Object.entries(X_AXES).map(([value, label]) =>
      h('option', { value }, label)
    )
  );
  const smoothing = h(
    'select',
    {
      id: `${idPrefix}-smoothing`,
      onchange: () => {
        set(
          'smoothing',
          smoothing.value === AUTOMATIC ? null : Number(smoothing.value)
        );
      }
    },
    h('option', { value: AUTOMATIC }, AUTOMATIC),
    ...model
      .get('choices')
      .map((/** @type {number} */ steps) =>
        h(
          'option',
          { value: String(steps) },
          steps ? `${steps.toLocaleString('en')} steps` : 'none'
        )
      )
  );
  const log = h('input', {
    type: 'checkbox',
    onchange: () => {
      set('log_scale', log.checked);
    }
  });
  const everyStep = h('input', {
    type: 'checkbox',
    onchange: () => {
      set('show_raw', everyStep.checked);
    }
  });
  const save = h(
    'button',
    {
      type: 'button',
      class: 'llf-push',
      onclick: () => model.send({ type: 'html' })
    },
    'Save as HTML'
  );
  const labelled = (
    /** @type {HTMLElement} */ control,
    /** @type {string} */ label
  ) =>
    h(
      'span',
      { class: 'llf-Compare-pair' },
      h('label', { class: 'llf-secondary', for: control.id }, label),
      control
    );
  const status = h('p', { role: 'status' });
  const columns = h('tr');
  const states = h('tr');
  /** @type {HTMLElement[]} */
  const parts = []; // of the table, one for each section
  const rows = h('table', {
    class: 'llf-Table llf-Compare-table',
    'aria-label': 'Runs side by side'
  });
  const [head, stateRows] = [h('thead', {}, columns), h('tbody', {}, states)];
  const table = h(
    'div',
    {
      class: 'llf-Compare-scroll',
      tabindex: '0',
      role: 'group',
      'aria-label': 'Table of the runs'
    },
    rows
  );
  const chart = plotlyChart('Curves of the runs');
  const answers = h('div');
  const sides = h(
    'div',
    { class: 'llf-Compare-sides' },
    table,
    h('div', { class: 'llf-Compare-curves' }, help, chart.box)
  );
  el.classList.add('llf-Part');
  el.append(
    h(
      'div',
      {
        class: 'llf-row llf-Compare-controls',
        role: 'group',
        'aria-label': 'Metric'
      },
      labelled(add, 'Add a run'),
      labelled(curve, 'Curve'),
      labelled(xAxis, 'Over'),
      labelled(smoothing, 'Smoothing'),
      h('label', {}, log, 'log scale'),
      h('label', {}, everyStep, 'every step'),
      save
    ),
    status,
    sides,
    answers
  );

  function drawCurves() {
    /** @type {Curves[]} */
    const groups = model.get('curves');
    drawIfChanged(curve, groups, () =>
      groups.map(({ title, lines }) =>
        h(
          'optgroup',
          { label: title },
          ...lines.map(([value, label]) =>
            h(
              'option',
              { value },
              lines.length === 1 ? title : `${title}: ${label}`
            )
          )
        )
      )
    );
    curve.value = model.get('curve');
    const group = groups.find(({ lines }) =>
      lines.some(([name]) => name === curve.value)
    );
    setText(
      help,
      [group?.help, model.get('view').note].filter(Boolean).join(' ')
    );
    log.disabled = !group?.log;
  }

  function drawControls() {
    drawCurves();
    xAxis.value = model.get('x_axis');
    smoothing.value = String(model.get('smoothing') ?? AUTOMATIC);
    log.checked = model.get('log_scale');
    everyStep.checked = model.get('show_raw');
  }

  const drawFigure = () => {
    if (model.get('figure').data) {
      chart.show(model.get('figure'));
    }
  };
  const drawError = () => setText(status, model.get('error'));

  function draw() {
    const {
      runs,
      sections,
      answers: given,
      available_runs: available
    } = model.get('view');
    if (!runs) {
      return;
    }
    drawIfChanged(add, available, () => [
      h(
        'option',
        { value: '' },
        available.length ? 'choose…' : 'no other runs'
      ),
      ...available.map((/** @type {any} */ one) =>
        h('option', { value: one.id, title: one.title }, one.name)
      )
    ]);
    sides.classList.toggle('is-stacked', runs.length > BESIDE);
    drawTable(runs, sections);
    drawIfChanged(answers, [runs.map(labelOf), given], () =>
      given.length ? answerTable(runs.map(labelOf), given) : []
    );
  }

  /** Draws the parts of the table whose data has changed, so that values of a live run take no click from a reader. */
  function drawTable(
    /** @type {ComparedRun[]} */ runs,
    /** @type {TableSection[]} */ sections
  ) {
    const heads = runs.map(({ tone, dash, label, name, id, title }) => [
      tone,
      dash,
      label,
      name,
      id,
      title
    ]);
    drawIfChanged(
      columns,
      heads,
      () => [h('td'), ...runs.map(run => columnHead(run, runs.length > 1))],
      () => table
    );
    drawIfChanged(
      states,
      runs.map(({ state, status_text }) => [state, status_text]),
      () => [
        h('th', { scope: 'row' }, 'State'),
        ...runs.map(({ state, status_text }) =>
          h(
            'td',
            { class: 'llf-num' },
            h('span', { class: `llf-State is-${state}` }, status_text)
          )
        )
      ]
    );
    while (parts.length < sections.length) {
      parts.push(h('tbody'));
    }
    sections.forEach((section, index) =>
      drawIfChanged(parts[index], [section, runs.length], () =>
        sectionRows(section, runs.length)
      )
    );
    placeChildren(rows, [head, stateRows, ...parts.slice(0, sections.length)]);
  }

  /** Draws the head of a run's column: a sample of its line, its label, and its name if that differs. */
  function columnHead(
    /** @type {ComparedRun} */ run,
    /** @type {boolean} */ several
  ) {
    return h(
      'th',
      { scope: 'col', class: 'llf-num', title: run.title },
      lineSample(run),
      run.label,
      run.name === run.label
        ? null
        : h('span', { class: 'llf-Compare-name llf-secondary' }, run.name),
      several
        ? h(
            'button',
            {
              type: 'button',
              class: 'llf-link llf-small',
              'aria-label': `Remove ${run.label}`,
              onclick: () => model.send({ type: 'remove', run: run.id })
            },
            'remove'
          )
        : null
    );
  }

  /** Draws a short sample of the run's line. */
  function lineSample(/** @type {ComparedRun} */ { tone, dash }) {
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    for (const [name, value] of Object.entries({
      width: '34',
      height: '6',
      'aria-hidden': 'true'
    })) {
      svg.setAttribute(name, value);
    }
    const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
    path.setAttribute('d', 'M0 3H34');
    path.setAttribute(
      'style',
      `stroke: var(--llf-s${tone}); stroke-width: 2; ${dash === 'solid' ? '' : `stroke-dasharray: ${dash.replaceAll('px', '')}`}`
    );
    svg.append(path);
    return svg;
  }

  /** Downloads the HTML page that the kernel has made. */
  function saveHtml(/** @type {{html?: string}} */ message) {
    if (typeof message.html !== 'string') {
      return;
    }
    const address = URL.createObjectURL(
      new Blob([message.html], { type: 'text/html' })
    );
    h('a', { href: address, download: 'llf-compare.html' }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
    setText(status, 'Saved as llf-compare.html.');
  }

  /** @type {[string, () => void][]} */
  const listeners = [
    ['view', draw],
    ['view', drawCurves],
    ['figure', drawFigure],
    ['error', drawError],
    ...['curves', 'curve', 'x_axis', 'smoothing', 'log_scale', 'show_raw'].map(
      name => /** @type {[string, () => void]} */ ([name, drawControls])
    )
  ];
  for (const [name, act] of listeners) {
    model.on(`change:${name}`, act);
  }
  model.on('msg:custom', saveHtml);
  for (const act of [draw, drawControls, drawFigure, drawError]) {
    act();
  }
  return () => {
    chart.close();
    model.off('msg:custom', saveHtml);
    for (const [name, act] of listeners) {
      model.off(`change:${name}`, act);
    }
  };
}

/** Returns the label of a run. @param {ComparedRun} run */
function labelOf({ label }) {
  return label;
}

/** Draws a section of the table: its title, and a row for each value. @param {TableSection} section @param {number} count number of runs */
function sectionRows({ title, note, rows }, count) {
  return [
    h(
      'tr',
      {},
      h(
        'td',
        { colspan: String(count + 1), class: 'llf-Compare-part' },
        h('b', {}, title),
        ' ',
        h('span', { class: 'llf-secondary' }, note)
      )
    ),
    ...rows.map(valueRow)
  ];
}

/** Draws a value of all runs. @param {TableRow} row */
function valueRow({ label, cells, best, code }) {
  return h(
    'tr',
    {},
    h('th', { scope: 'row' }, code ? h('code', {}, label) : label),
    ...cells.map((cell, place) => {
      const [text = '', ...below] = cell.split('\n');
      return h(
        'td',
        { class: 'llf-num', title: text.length > 24 ? text : null },
        best.includes(place) ? h('b', {}, text) : text,
        ...below.map(one =>
          h('span', { class: 'llf-Compare-name llf-secondary' }, one)
        )
      );
    })
  );
}

/**
 * Draws the completions of the same prompts.
 * @param {string[]} labels of the runs
 * @param {{prompt: string, base: string | null, texts: (string | null)[]}[]} answers
 */
function answerTable(labels, answers) {
  return [
    h('h3', {}, 'Completions of the same prompts'),
    h(
      'table',
      { class: 'llf-Table llf-Compare-answers' },
      h(
        'thead',
        {},
        h(
          'tr',
          {},
          ...['Prompt', 'Base', ...labels].map(text =>
            h('th', { scope: 'col' }, text)
          )
        )
      ),
      h(
        'tbody',
        {},
        ...answers.map(({ prompt, base, texts }) =>
          h(
            'tr',
            {},
            ...[prompt, base, ...texts].map(text => h('td', {}, text ?? '–'))
          )
        )
      )
    )
  ];
}

export default { initialize, render };
