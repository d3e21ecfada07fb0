// The table of the compared runs, and the completions of the same prompts.

import { drawIfChanged, h, placeChildren } from '../shared/dom.js';
import { svg } from '../shared/svg.js';

/** @typedef {{label: string, cells: string[], best: number[], code: boolean}} TableRow */
/** @typedef {{title: string, note: string, rows: TableRow[]}} TableSection */
/** @typedef {{name: string, label: string, id: string, title: string, state: string, status_text: string, finding: boolean, tone: number, dash: string}} ComparedRun a run, or a group of runs */

/**
 * Creates the table of the runs.
 * @param {(id: string) => void} onRemove called with the id of a run whose button was clicked
 */
export function runTable(onRemove) {
  const columns = h('tr');
  const states = h('tr');
  const [head, stateRows] = [h('thead', {}, columns), h('tbody', {}, states)];
  /** @type {HTMLElement[]} */
  const parts = []; // one for each section
  const table = h('table', {
    class: 'llf-Table llf-Compare-table',
    'aria-label': 'Runs side by side'
  });
  const box = h(
    'div',
    {
      class: 'llf-Compare-scroll',
      tabindex: '0',
      role: 'group',
      'aria-label': 'Table of the runs'
    },
    table
  );

  /** Draws the parts whose data has changed, so that values of a live run take no click from a reader. */
  function draw(
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
      () => [
        h('td'),
        ...runs.map(run => columnHead(run, runs.length > 1 ? onRemove : null))
      ],
      () => box
    );
    drawIfChanged(
      states,
      runs.map(({ state, status_text, finding }) => [
        state,
        status_text,
        finding
      ]),
      () => [
        h('th', { scope: 'row' }, 'State'),
        ...runs.map(({ state, status_text, finding }) =>
          h(
            'td',
            { class: 'llf-num' },
            h(
              'span',
              {
                class: `llf-State is-${state}${finding ? ' has-finding' : ''}`
              },
              status_text
            )
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
    placeChildren(table, [head, stateRows, ...parts.slice(0, sections.length)]);
  }

  return { box, draw };
}

/**
 * Draws the head of a run's column: a sample of its line, its label, and its name if that differs.
 * @param {ComparedRun} run
 * @param {((id: string) => void) | null} onRemove null if it cannot be removed
 */
function columnHead(run, onRemove) {
  return h(
    'th',
    { scope: 'col', class: 'llf-num', title: run.title },
    lineSample(run),
    run.label,
    run.name === run.label
      ? null
      : h('span', { class: 'llf-Compare-name llf-secondary' }, run.name),
    onRemove
      ? h(
          'button',
          {
            type: 'button',
            class: 'llf-link llf-small',
            'aria-label': `Remove ${run.label}`,
            onclick: () => onRemove(run.id)
          },
          'remove'
        )
      : null
  );
}

/** Draws a short sample of the run's line. */
function lineSample(/** @type {ComparedRun} */ { tone, dash }) {
  const dashes =
    dash === 'solid' ? '' : `stroke-dasharray: ${dash.replaceAll('px', '')}`;
  return svg(
    'svg',
    { width: 34, height: 6, 'aria-hidden': 'true' },
    svg('path', {
      d: 'M0 3H34',
      style: `stroke: var(--llf-s${tone}); stroke-width: 2; ${dashes}`
    })
  );
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
export function answerTable(labels, answers) {
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
