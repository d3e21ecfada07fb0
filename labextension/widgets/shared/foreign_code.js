// Shows foreign Python code before it runs with the user's permissions.

import { h } from './dom.js';

/** @typedef {{owner: string, folder: string, sha256: string, files: {name: string, path: string, lines: string[]}[], more: number, references: string[]}} ForeignCode what `llf_core.runs.foreign_code.ForeignCode.json` makes */

/**
 * Draws the source of the code, as text, with the buttons that allow or refuse it.
 * @param {ForeignCode[]} code
 * @param {string} purpose a sentence that says why the code would run
 * @param {HTMLElement[]} buttons
 */
export function foreignCodeNotice(code, purpose, buttons) {
  return h(
    'section',
    {
      class: 'llf-ForeignCode',
      role: 'group',
      'aria-label': 'Code to review'
    },
    h(
      'p',
      {},
      h('b', {}, 'Untrusted Python code. '),
      `${purpose} It has not been executed. Review it first: it runs with your permissions.`
    ),
    ...code.map(one =>
      h(
        'div',
        {},
        h(
          'p',
          {},
          `${one.owner[0].toUpperCase()}${one.owner.slice(1)}, in `,
          h('code', {}, one.folder),
          ' · SHA-256 ',
          h('code', { title: one.sha256 }, one.sha256.slice(0, 12))
        ),
        ...one.files.map(file =>
          h(
            'details',
            { open: one.files.length < 3 },
            h('summary', {}, h('code', {}, file.name)),
            h(
              'pre',
              { tabindex: '0', 'aria-label': `First lines of ${file.name}` },
              file.lines.join('\n')
            )
          )
        ),
        one.more > 0 ? h('p', {}, `and ${one.more} more files`) : null,
        one.references.length
          ? h(
              'p',
              { class: 'llf-secondary llf-small' },
              `Referenced by: ${one.references.join('; ')}`
            )
          : null
      )
    ),
    h('div', { class: 'llf-row' }, ...buttons)
  );
}
