import { createButton, setDisabled } from '../shared/buttons.js';
import { h } from '../shared/dom.js';

/**
 * Creates the input and the button that change a number of the live run. Input is not overwritten until it is sent.
 * @param {string} label
 * @param {Record<string, string>} attributes of the input
 * @param {(value: number) => void} onSet
 * @param {(sentence: string) => void} onInvalid called with what is wrong with the input
 */
export function numberSetting(label, attributes, onSet, onInvalid) {
  const input = h('input', {
    type: 'text',
    ...attributes,
    onkeydown: (/** @type {KeyboardEvent} */ event) => {
      if (event.key === 'Enter') {
        set();
      }
    }
  });
  const button = createButton('Set', set);
  button.setAttribute('aria-label', `Set ${label.toLowerCase()}`);
  const box = h(
    'span',
    { class: 'llf-Setting' },
    h('label', { class: 'llf-secondary' }, `${label} `, input),
    button
  );

  function set() {
    if (button.getAttribute('aria-disabled') === 'true') {
      return;
    }
    if (!input.value.trim() || Number.isNaN(Number(input.value))) {
      onInvalid(`${label} is "${input.value}". Expected a number.`);
      input.focus();
      return;
    }
    onSet(Number(input.value));
  }

  /** Shows the run's value, unless the reader is typing another one. */
  function show(/** @type {string} */ text) {
    if (input.dataset.value === text) {
      return;
    }
    if (document.activeElement !== input) {
      input.value = text;
    }
    input.dataset.value = text;
  }
  return {
    box,
    show,
    /** Disables or enables the button, and Enter in the input. */
    setDisabled: (/** @type {boolean} */ disabled) =>
      setDisabled(button, disabled)
  };
}
