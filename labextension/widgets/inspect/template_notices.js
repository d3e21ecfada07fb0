// What the chat template never renders of the data, with a button that renames a field to one that it reads.

import { createButton } from '../shared/buttons.js';
import { h } from '../shared/dom.js';

/**
 * Creates the notices about the chat template, warnings first.
 * @param {any} overview `template_warnings`, `template_notes`, `renames` (new name by field) and `rename_fields`
 * @param {(changes: any) => void} change prepares the data again with other settings
 */
export function templateNotices(overview, change) {
  const warnings = overview.template_warnings ?? [];
  const renames = overview.renames ?? {};
  const paragraph = (
    /** @type {string} */ kind,
    /** @type {string} */ sentence
  ) =>
    h(
      'p',
      { class: `llf-small llf-Inspect-note ${kind}` },
      sentence.replaceAll('`', '')
    );
  const buttons = Object.entries(renames).map(([name, other]) =>
    createButton(`Rename ${name} to ${other}`, () =>
      change({ rename_fields: { ...overview.rename_fields, [name]: other } })
    )
  );
  return [
    ...(warnings.length
      ? [
          h(
            'div',
            { role: 'status' },
            ...warnings.map((/** @type {string} */ one) =>
              paragraph('llf-warning-text', one)
            )
          )
        ]
      : []),
    ...(buttons.length
      ? [h('div', { class: 'llf-row llf-Inspect-actions' }, ...buttons)]
      : []),
    ...(overview.template_notes ?? []).map((/** @type {string} */ one) =>
      paragraph('llf-secondary', one)
    )
  ];
}
