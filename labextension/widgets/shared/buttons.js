// Buttons that keep the focus while they are disabled, and views whose kernel is gone.

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
 * In an element that `disableControls` has disabled, it stays so.
 * @param {HTMLButtonElement} node made by `createButton`
 * @param {boolean} disabled
 */
export function setDisabled(node, disabled) {
  const wanted = disabled || node.closest(`.${DISABLED}`) !== null;
  if ((node.getAttribute('aria-disabled') === 'true') !== wanted) {
    node.setAttribute('aria-disabled', String(wanted));
  }
}

/** Class of an element whose controls are disabled for good. */
const DISABLED = 'llf-is-disabled';

/**
 * Marks a button that works in the page alone, such as one that copies; `disableControls` leaves it as it is.
 * @param {HTMLButtonElement} node
 */
export function markLocal(node) {
  node.dataset.llfLocal = '';
  return node;
}

/**
 * Disables all controls of an element for good; its texts, also those in fields, stay readable.
 * @param {HTMLElement} element
 */
export function disableControls(element) {
  element.classList.add(DISABLED);
  for (const node of element.querySelectorAll(
    'button:not([data-llf-local]), [role="button"]'
  )) {
    node.setAttribute('aria-disabled', 'true');
  }
  for (const node of element.querySelectorAll('select, input, textarea')) {
    if (
      node instanceof HTMLTextAreaElement ||
      (node instanceof HTMLInputElement && node.type === 'text')
    ) {
      node.readOnly = true;
    } else {
      node.toggleAttribute('disabled', true);
    }
  }
  for (const type of ['click', 'keydown']) {
    element.addEventListener(type, ignoreDisabled, true); // also on what `createButton` did not make
  }
}

/** Stops a click, or a press of Enter or Space, on a control that is disabled. */
function ignoreDisabled(/** @type {any} */ event) {
  const isPress =
    event.type === 'click' || event.key === 'Enter' || event.key === ' ';
  if (isPress && event.target.closest('[aria-disabled="true"]')) {
    event.stopImmediatePropagation();
  }
}
