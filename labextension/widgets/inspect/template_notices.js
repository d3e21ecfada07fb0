// What the chat template never renders of the data, with a button that renames a field to one that it reads.

import { createButton } from '../shared/buttons.js';
import { h } from '../shared/dom.js';

/** @import { Change, Overview } from './types' */

/**
 * Creates the notices about the chat template, warnings first.
 * @param {Pick<Overview, 'template_warnings' | 'template_notes' | 'renames' | 'rename_fields'>} overview
 * @param {Change} change prepares the data again with other settings
 */
export function templateNotices(overview, change) {
  const warnings = overview.template_warnings;
  const renames = overview.renames;
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
            ...warnings.map(one => paragraph('llf-warning-text', one))
          )
        ]
      : []),
    ...(buttons.length
      ? [h('div', { class: 'llf-row llf-Inspect-actions' }, ...buttons)]
      : []),
    ...overview.template_notes.map(one => paragraph('llf-secondary', one))
  ];
}
