import { h } from '../shared/dom.js';
import { formatCount, withUnit } from '../../src/numbers';
import { percent, table, withoutSuffix } from './elements.js';
import { templateNotices } from './template_notices.js';

/** Draws the counts of each data set: records, tokens, and tokens in the loss. */
export function totalsSection(
  /** @type {any} */ overview,
  /** @type {(changes: any) => void} */ change
) {
  const keys = [
    'records',
    'examples',
    'cut',
    'dropped',
    'tokens',
    'trained_tokens'
  ];
  /** @type {any[][]} */
  const sets = overview.sets.map((/** @type {any} */ one) => [
    one.dataset,
    ...keys.map(key => one[key])
  ]);
  if (sets.length > 1) {
    sets.push([
      'All',
      ...keys.map((_, place) =>
        sets.reduce((sum, row) => sum + row[place + 1], 0)
      )
    ]);
  }
  const rows = sets.map(row => [
    h('span', { class: 'llf-ellipsis', title: row[0] }, withoutSuffix(row[0])),
    ...row.slice(1).map(formatCount),
    percent(row[6], row[5])
  ]);
  const evaluation = overview.held_out
    ? `, ${formatCount(overview.held_out)} of them held out`
    : '';
  const streamed = overview.streamed
    ? ` Streamed: the first ${formatCount(overview.streamed)} records of each set are shown.`
    : '';
  const preparation = overview.cached
    ? 'loaded from the cache'
    : `prepared in ${overview.seconds.toFixed(1)} s`;
  const duplicates = overview.copies
    ? [
        h(
          'p',
          { class: 'llf-small llf-Inspect-copies', role: 'status' },
          overview.copies.replaceAll('`', '')
        )
      ]
    : [];
  return h(
    'section',
    { 'aria-label': 'Totals' },
    h('h3', {}, 'Totals'),
    table(
      [
        'Data set',
        'Records',
        'Kept',
        'Truncated',
        'Dropped',
        'Tokens',
        'In the loss',
        '%'
      ],
      rows,
      {
        class: 'llf-Totals',
        text: [0],
        row: place => ({
          class:
            sets.length > 1 && place === sets.length - 1 ? 'is-total' : null
        })
      }
    ),
    ...duplicates,
    ...templateNotices(overview, change),
    h(
      'p',
      { class: 'llf-secondary llf-small llf-Inspect-note' },
      `${overview.sets.map((/** @type {any} */ one) => `${one.dataset}: ${one.reading}`).join('. ')}. ` +
        `Template: ${overview.template}. ${withUnit(overview.examples + overview.held_out, 'example')}${evaluation}, ${preparation}.${streamed}`
    )
  );
}
