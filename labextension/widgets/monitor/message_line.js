import { createButton } from '../shared/buttons.js';
import { h } from '../shared/dom.js';
import { textWithCode } from '../../src/text_with_code';

/** @typedef {{level: string, text: string, actions?: {label: string, change: object}[]}} Message */

/**
 * Draws a message with its level as a word, so that colour is not the only sign.
 * @param {Message} message
 * @param {(change: object) => void} [onAction] called with the change of a clicked button
 * @returns {HTMLElement}
 */
export function messageLine({ level, text, actions = [] }, onAction) {
  const levelText = { error: 'Error', warn: 'Warning' }[level] ?? 'Note';
  const role = level === 'error' ? 'alert' : 'status';
  return h(
    'div',
    { class: `llf-Message is-${level || 'note'}`, role },
    h('b', {}, levelText),
    h(
      'div',
      {},
      ...textWithCode(text),
      actions.length && onAction
        ? h(
            'div',
            { class: 'llf-Message-fix' },
            ...actions.map(({ label, change }) =>
              createButton(label, () => onAction(change))
            )
          )
        : null
    )
  );
}
