// Copies texts to the clipboard.

import { createButton, markLocal } from './buttons.js';
import { h, setText } from './dom.js';

const OUTCOME_MS = 2000;

/**
 * Copies a text, also on pages without a clipboard API (plain http).
 * @param {string} text
 * @returns {Promise<boolean>} whether it was copied
 */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copySelection(text);
  }
}

/** Copies a text by selecting it; the focus returns to where it was. @param {string} text */
function copySelection(text) {
  const focused = document.activeElement;
  const area = h('textarea', { 'aria-hidden': 'true', class: 'llf-sr' });
  area.value = text;
  document.body.append(area);
  area.focus({ preventScroll: true });
  area.select();
  const copied = document.execCommand?.('copy') ?? false;
  area.remove();
  if (focused instanceof HTMLElement) {
    focused.focus({ preventScroll: true });
  }
  return copied;
}

/**
 * Creates a button that copies a text and then says for a moment whether it was copied. It works without a kernel.
 * @param {() => string} text returns what is copied
 * @param {object} [options]
 * @param {string} [options.label]
 * @param {string} [options.name] for screen readers, if it says more than the label
 * @param {string} [options.className]
 */
export function copyButton(
  text,
  { label = 'Copy', name, className = 'llf-link' } = {}
) {
  const button = markLocal(
    createButton(
      label,
      async () => {
        show((await copyText(text())) ? 'Copied' : 'Not copied');
        setTimeout(() => show(label, name), OUTCOME_MS);
      },
      className
    )
  );

  function show(
    /** @type {string} */ shown,
    /** @type {string} */ spoken = shown
  ) {
    setText(button, shown);
    button.setAttribute('aria-label', spoken);
  }

  show(label, name);
  return button;
}
