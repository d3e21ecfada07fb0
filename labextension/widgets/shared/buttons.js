// Buttons that keep the focus while they are disabled.

import { h } from './dom.js';

/**
 * Creates a button that `setDisabled` can disable.
 * @param {string} label
 * @param {() => void} act
 * @param {string} [className]
 * @returns {HTMLButtonElement}
 */
export function createButton(label, act, className) {
  const node = h('button', { type: 'button', class: className }, label);
  node.addEventListener(
    'click',
    () => node.getAttribute('aria-disabled') !== 'true' && act()
  );
  return node;
}

/**
 * Disables or enables a button by `aria-disabled`, so that it keeps the focus; the attribute `disabled` would lose it.
 * @param {HTMLButtonElement} node made by `createButton`
 * @param {boolean} disabled
 */
export function setDisabled(node, disabled) {
  if ((node.getAttribute('aria-disabled') === 'true') !== disabled) {
    node.setAttribute('aria-disabled', String(disabled));
  }
}

/**
 * Disables all buttons and lists of an element for good; its text stays readable.
 * @param {HTMLElement} element
 */
export function disableControls(element) {
  for (const node of element.querySelectorAll('button')) {
    setDisabled(node, true);
  }
  for (const node of element.querySelectorAll('select')) {
    node.disabled = true;
  }
}
