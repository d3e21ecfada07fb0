// Elements that the sections of the view share.

import { h } from '../shared/dom.js';

/** Creates a button that looks like a link. */
export function linkButton(
  /** @type {string} */ label,
  /** @type {() => void} */ onClick,
  /** @type {Record<string, string>} */ more = {}
) {
  return h(
    'button',
    { type: 'button', class: 'llf-link', onclick: onClick, ...more },
    label
  );
}

/** Returns the name of a data set without its file extension. */
export function withoutSuffix(/** @type {string} */ name) {
  return name.replace(
    /\.(jsonl?|csv|tsv|parquet|arrow|txt)(\.(gz|bz2|xz|zst))?$/,
    ''
  );
}

/** Formats a part of a whole as a percentage. */
export function percent(
  /** @type {number} */ part,
  /** @type {number} */ whole
) {
  return `${whole ? Math.round((100 * part) / whole) : 0} %`;
}

/** @typedef {{class?: string, label?: string, text?: number[], row?: (place: number) => Record<string, string | null>}} TableLook `text` are the columns that hold no numbers */

/** Creates a table. @param {string[]} heads @param {(string | Node)[][]} rows @param {TableLook} [look] */
export function table(heads, rows, look = {}) {
  const cell =
    (/** @type {'td' | 'th'} */ tag) =>
    (/** @type {string | Node} */ value, /** @type {number} */ place) =>
      h(
        tag,
        {
          class: look.text?.includes(place) ? null : 'llf-num',
          scope: tag === 'th' ? 'col' : null
        },
        value
      );
  return h(
    'table',
    { class: `llf-Table ${look.class ?? ''}`, 'aria-label': look.label },
    h(
      'thead',
      {},
      h(
        'tr',
        {},
        ...heads.map((head, place) => cell(head ? 'th' : 'td')(head, place))
      )
    ),
    h(
      'tbody',
      {},
      ...rows.map((row, place) =>
        h('tr', look.row?.(place) ?? {}, ...row.map(cell('td')))
      )
    )
  );
}
