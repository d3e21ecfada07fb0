// Chooses one token of a text, by the pointer or by the arrow keys.

import { h } from './dom.js';

/**
 * Creates a box of tokens, of which one can be chosen. The keyboard reaches the box as one stop.
 * @param {object} options
 * @param {string} options.label for screen readers; says that the arrow keys go from token to token
 * @param {string} options.className
 * @param {string} options.chosenClass class of the chosen token
 * @param {HTMLElement[]} options.tokens in their order
 * @param {Node[]} [options.children] what the box holds; the tokens by default
 * @param {(index: number) => void} options.onChoose
 */
export function tokenCursor({
  label,
  className,
  chosenClass,
  tokens,
  children = tokens,
  onChoose
}) {
  let chosen = -1;

  function choose(/** @type {number} */ index) {
    clear();
    chosen = index;
    tokens[index].classList.add(chosenClass);
    onChoose(index);
  }

  /** Marks no token; the arrow keys go on from the last one. */
  function clear() {
    tokens[chosen]?.classList.remove(chosenClass);
  }

  const box = h(
    'div',
    {
      class: className,
      tabindex: '0',
      role: 'group',
      'aria-label': label,
      onkeydown: (/** @type {KeyboardEvent} */ event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (step && tokens.length) {
          event.preventDefault();
          choose(Math.min(Math.max(chosen + step, 0), tokens.length - 1));
          tokens[chosen].scrollIntoView({ block: 'nearest' });
        }
      },
      onpointerover: (/** @type {PointerEvent} */ event) => {
        const index = tokens.indexOf(/** @type {HTMLElement} */ (event.target));
        if (index >= 0) {
          choose(index);
        }
      }
    },
    ...children
  );
  return { box, clear };
}
