import { h } from '../shared/dom.js';
import { formatCount, withUnit } from '../../src/numbers';
import { percent, table, withoutSuffix } from './elements.js';
import { templateNotices } from './template_notices.js';

/** @import { Change, Overview } from './types' */

/** Draws the counts of each data set: records, tokens, and tokens in the loss. */
export function totalsSection(
  /** @type {Overview} */ overview,
  /** @type {Change} */ change
) {
  const keys = /** @type {const} */ ([
    'records',
    'examples',
    'cut',
    'dropped',
    'tokens',
    'trained_tokens'
  ]);
  const sets = overview.sets.map(one => ({
    name: one.dataset,
    counts: keys.map(key => one[key])
  }));
  if (sets.length > 1) {
    const counts = keys.map(key =>
      overview.sets.reduce((sum, one) => sum + one[key], 0)
    );
    sets.push({ name: 'All', counts });
  }
  const rows = sets.map(({ name, counts }) => [
    h('span', { class: 'llf-ellipsis', title: name }, withoutSuffix(name)),
    ...counts.map(count => formatCount(count)),
    percent(counts[5], counts[4])
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
      `${overview.sets.map(one => `${one.dataset}: ${one.reading}`).join('. ')}. ` +
        `Template: ${overview.template}. ${withUnit(overview.examples + overview.held_out, 'example')}${evaluation}, ${preparation}.${streamed}`
    )
  );
}
