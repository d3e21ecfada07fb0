// A message: its level as a word, so that colour is not the only sign, a text, and buttons.

import { h } from './dom.js';

const LEVELS = { error: 'Error', warn: 'Warning', note: 'Note' };

/**
 * Draws a message.
 * @param {keyof typeof LEVELS} level
 * @param {(Node | string)[]} text
 * @param {object} [options]
 * @param {HTMLElement[]} [options.buttons] below the text
 * @param {string | null} [options.role] null in an element that announces its messages itself
 * @returns {HTMLElement}
 */
export function messageBox(
  level,
  text,
  { buttons = [], role = level === 'error' ? 'alert' : 'status' } = {}
) {
  return h(
    'div',
    { class: `llf-Message is-${level}`, role },
    h('b', {}, LEVELS[level]),
    h(
      'div',
      {},
      ...text,
      buttons.length ? h('div', { class: 'llf-Message-fix' }, ...buttons) : null
    )
  );
}
