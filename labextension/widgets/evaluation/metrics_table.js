// The table of metrics: a column for each model, and a verdict for each that is compared with the first one.

import { h } from '../shared/dom.js';

/** @import { Column, MetricRow } from './types' */

/** @type {Record<string, string>} */
const VERDICT_CLASSES = { better: 'is-better', worse: 'is-worse' };

/**
 * @param {MetricRow[]} rows
 * @param {Column[]} columns
 * @param {string[]} votes a sentence for each model that is compared; empty without votes
 */
export function metricsTable(rows, columns, votes) {
  const compared = columns.slice(1);
  return h(
    'table',
    { class: 'llf-Table is-ruled llf-Evaluation-table' },
    h('caption', { class: 'llf-secondary llf-small' }, caption(columns)),
    h(
      'thead',
      {},
      h(
        'tr',
        {},
        h('th', { scope: 'col' }, 'Metric'),
        ...columns.map(({ name, label }) =>
          h('th', { scope: 'col', title: label }, name)
        ),
        ...compared.map(({ name }) =>
          h(
            'th',
            { scope: 'col' },
            compared.length > 1 ? `${name}: difference` : 'Difference'
          )
        )
      )
    ),
    h(
      'tbody',
      {},
      ...rows.flatMap((row, at) => [
        ...(row.group && row.group !== rows[at - 1]?.group
          ? [groupRow(row.group, 1 + columns.length + compared.length)]
          : []),
        metricRow(row),
        ...row.sources.map(sourceRow)
      ]),
      ...(votes.some(Boolean) ? [votesRow(columns, votes)] : [])
    )
  );
}

function caption(/** @type {Column[]} */ columns) {
  const what = '95 % intervals by the bootstrap over the examples';
  return columns.length > 1
    ? `Differences from ${columns[0].name}; ${what}, paired.`
    : `${what}.`;
}

function groupRow(/** @type {string} */ name, /** @type {number} */ width) {
  return h(
    'tr',
    { class: 'is-group' },
    h('th', { scope: 'rowgroup', colspan: String(width) }, name)
  );
}

function metricRow(/** @type {MetricRow} */ row) {
  return h(
    'tr',
    {},
    h(
      'th',
      { scope: 'row', title: `${row.better} is better` },
      row.label,
      h(
        'span',
        { class: 'llf-secondary llf-small', 'aria-hidden': 'true' },
        row.better === 'higher' ? ' ↑' : ' ↓'
      )
    ),
    ...row.values.map(({ text, interval }) =>
      h(
        'td',
        {},
        text,
        interval
          ? h('span', { class: 'llf-secondary llf-small' }, ` ${interval}`)
          : null
      )
    ),
    ...row.differences.map(({ verdict, sentence }) =>
      h('td', { class: VERDICT_CLASSES[verdict] }, sentence)
    )
  );
}

function sourceRow(/** @type {MetricRow['sources'][0]} */ { name, values }) {
  return h(
    'tr',
    { class: 'is-source' },
    h('th', { scope: 'row' }, name),
    ...values.map(text => h('td', {}, text))
  );
}

function votesRow(
  /** @type {Column[]} */ columns,
  /** @type {string[]} */ votes
) {
  return h(
    'tr',
    {},
    h('th', { scope: 'row' }, 'Your votes'),
    ...columns.map(() => h('td', {}, '')),
    ...votes.map(sentence => h('td', {}, sentence))
  );
}
