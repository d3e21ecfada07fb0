// Runs side by side: what the curves are drawn over, the table beside the curves, answers to the same prompts.

import '../shared/llf.css';
import '../shared/plotly_colors.css';
import './compare.css';
import { plotlyChart } from '../shared/plotly_chart.js';
import { h, setText } from '../shared/dom.js';
import { initialize } from '../shared/initialize.js';

/** @import { Context } from '../shared/model' */

let viewCount = 0;
const OVERS = { step: 'step', tokens: 'tokens', time: 'time' };
const AUTOMATIC = 'automatic';

/** @typedef {{label: string, cells: string[], best: number[], code: boolean}} TableRow */
/** @typedef {{title: string, note: string, rows: TableRow[]}} TableSection */
/** @typedef {{title: string, help: string, log: boolean, lines: [string, string][]}} Curves */
/** @typedef {{name: string, label: string, id: string, state: string, tone: number, dash: string}} ComparedRun */

/** @param {Context} context */
function render({ model, el }) {
  const own = `llf-compare-${++viewCount}`;
  const set = (/** @type {string} */ name, /** @type {any} */ value) => {
    model.set(name, value);
    model.save_changes();
  };
  const add = h('select', {
    id: `${own}-add`,
    onchange: () => {
      if (add.value) {
        model.send({ type: 'add', run: add.value });
      }
      add.value = '';
    }
  });
  const curve = h('select', {
    id: `${own}-curve`,
    onchange: () => {
      set('curve', curve.value);
    }
  });
  const help = h('p', { class: 'llf-2 llf-small' });
  const over = h(
    'select',
    {
      id: `${own}-over`,
      onchange: () => {
        set('over', over.value);
      }
    },
    ...Object.entries(OVERS).map(([value, label]) =>
      h('option', { value }, label)
    )
  );
  const smoothing = h(
    'select',
    {
      id: `${own}-smoothing`,
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
      set('log', log.checked);
    }
  });
  const every = h('input', {
    type: 'checkbox',
    onchange: () => {
      set('every', every.checked);
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
  const pair = (
    /** @type {HTMLElement} */ control,
    /** @type {string} */ label
  ) =>
    h(
      'span',
      { class: 'llf-Compare-pair' },
      h('label', { class: 'llf-2', for: control.id }, label),
      control
    );
  const said = h('p', { role: 'status' });
  const table = h('div', {
    class: 'llf-Compare-scroll',
    tabindex: '0',
    role: 'group',
    'aria-label': 'Table of the runs'
  });
  const chart = plotlyChart('Curves of the runs');
  const answers = h('div');
  el.classList.add('llf-Part');
  el.append(
    h(
      'div',
      {
        class: 'llf-row llf-Compare-controls',
        role: 'group',
        'aria-label': 'Metric'
      },
      pair(add, 'Add a run'),
      pair(curve, 'Curve'),
      pair(over, 'Over'),
      pair(smoothing, 'Smoothing'),
      h('label', {}, log, 'log scale'),
      h('label', {}, every, 'every step'),
      save
    ),
    said,
    h(
      'div',
      { class: 'llf-Compare-sides' },
      table,
      h('div', { class: 'llf-Compare-curves' }, help, chart.box)
    ),
    answers
  );

  /** Rebuilt only where others have come: an open list stays open. */
  function setOptions(
    /** @type {HTMLElement} */ select,
    /** @type {unknown} */ what,
    /** @type {() => HTMLElement[]} */ options
  ) {
    const text = JSON.stringify(what);
    if (select.dataset.text === text) {
      return;
    }
    select.dataset.text = text;
    select.replaceChildren(...options());
  }

  function drawCurves() {
    /** @type {Curves[]} */
    const groups = model.get('curves');
    setOptions(curve, groups, () =>
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
    setText(help, group?.help ?? '');
    log.disabled = !group?.log;
  }

  function drawControls() {
    drawCurves();
    over.value = model.get('over');
    smoothing.value = String(model.get('smoothing') ?? AUTOMATIC);
    log.checked = model.get('log');
    every.checked = model.get('every');
  }

  const drawFigure = () => {
    if (model.get('figure').data) {
      chart.show(model.get('figure'));
    }
  };
  const drawError = () => setText(said, model.get('error'));

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
    setOptions(add, available, () => [
      h(
        'option',
        { value: '' },
        available.length ? 'choose…' : 'no other runs'
      ),
      ...available.map((/** @type {any} */ one) =>
        h('option', { value: one.id, title: one.title }, one.name)
      )
    ]);
    add.disabled = !available.length;
    const row = (/** @type {TableRow} */ { label, cells, best, code }) =>
      h(
        'tr',
        {},
        h('th', { scope: 'row' }, code ? h('code', {}, label) : label),
        ...cells.map((cell, place) =>
          h(
            'td',
            { class: 'llf-num', title: cell.length > 24 ? cell : null },
            best.includes(place) ? h('b', {}, cell) : cell
          )
        )
      );
    table.replaceChildren(
      h(
        'table',
        {
          class: 'llf-Table llf-Compare-table',
          'aria-label': 'Runs side by side'
        },
        h(
          'thead',
          {},
          h(
            'tr',
            {},
            h('td'),
            ...runs.map((/** @type {ComparedRun} */ run) =>
              head(run, runs.length > 1)
            )
          )
        ),
        h(
          'tbody',
          {},
          h(
            'tr',
            {},
            h('th', { scope: 'row' }, 'State'),
            ...runs.map((/** @type {ComparedRun} */ run) =>
              h(
                'td',
                { class: 'llf-num' },
                h('span', { class: `llf-State is-${run.state}` }, run.state)
              )
            )
          )
        ),
        ...sections.map((/** @type {TableSection} */ section) =>
          h(
            'tbody',
            {},
            h(
              'tr',
              {},
              h(
                'td',
                { colspan: String(runs.length + 1), class: 'llf-Compare-part' },
                h('b', {}, section.title),
                ' ',
                h('span', { class: 'llf-2' }, section.note)
              )
            ),
            ...section.rows.map(row)
          )
        )
      )
    );
    answers.replaceChildren(
      ...(given.length
        ? [
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
                  ...[
                    'Prompt',
                    'Base',
                    ...runs.map((/** @type {ComparedRun} */ run) => run.label)
                  ].map(text => h('th', { scope: 'col' }, text))
                )
              ),
              h(
                'tbody',
                {},
                ...given.map((/** @type {any} */ row) =>
                  h(
                    'tr',
                    {},
                    ...[row.prompt, row.base, ...row.texts].map(text =>
                      h('td', {}, text ?? '–')
                    )
                  )
                )
              )
            )
          ]
        : [])
    );
  }

  /** A run's column: a piece of its line, what tells it apart, and its name where that is something else. */
  function head(
    /** @type {ComparedRun} */ run,
    /** @type {boolean} */ several
  ) {
    return h(
      'th',
      { scope: 'col', class: 'llf-num', title: `${run.name} (${run.id})` },
      sample(run),
      run.label,
      run.name === run.label
        ? null
        : h('span', { class: 'llf-Compare-name llf-2' }, run.name),
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

  /** A short piece of the run's line. */
  function sample(/** @type {ComparedRun} */ { tone, dash }) {
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

  /** The page that the kernel made, as a file. */
  function take(/** @type {{html?: string}} */ message) {
    if (typeof message.html !== 'string') {
      return;
    }
    const address = URL.createObjectURL(
      new Blob([message.html], { type: 'text/html' })
    );
    h('a', { href: address, download: 'llf-compare.html' }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
    setText(said, 'Saved as llf-compare.html.');
  }

  /** @type {[string, () => void][]} */
  const followed = [
    ['view', draw],
    ['figure', drawFigure],
    ['error', drawError],
    ...['curves', 'curve', 'over', 'smoothing', 'log', 'every'].map(
      name => /** @type {[string, () => void]} */ ([name, drawControls])
    )
  ];
  for (const [name, act] of followed) {
    model.on(`change:${name}`, act);
  }
  model.on('msg:custom', take);
  for (const act of [draw, drawControls, drawFigure, drawError]) {
    act();
  }
  return () => {
    chart.close();
    model.off('msg:custom', take);
    for (const [name, act] of followed) {
      model.off(`change:${name}`, act);
    }
  };
}

export default { initialize, render };
