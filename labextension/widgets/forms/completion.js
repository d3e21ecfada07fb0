// Completes a text field from the kernel: a combobox with a list, as the ARIA authoring practices describe it.

import { h } from '../shared/dom.js';

/** @import { Model } from '../shared/model' */

/**
 * @typedef {object} Reply The kernel's reply to a request.
 * @property {string} type `completions`
 * @property {string} key the field
 * @property {number} serial number of the request
 * @property {[string, string][]} options value, and what is known of it
 * @property {string} more how many others match; empty if none
 */

/** The list of completions of one field. The field itself keeps what is typed, so any other value can be entered. */
export class Completion {
  /**
   * @param {HTMLInputElement} input
   * @param {string} key the field
   * @param {string} label name of the list for screen readers
   * @param {Model} model searches in the kernel
   */
  constructor(input, key, label, model) {
    this.input = input;
    this.key = key;
    this.model = model;
    this.serial = 0;
    this.active = -1;
    /** @type {HTMLElement[]} */
    this.options = [];
    this.list = h('ul', {
      id: `${input.id}-list`,
      class: 'llf-Completion',
      role: 'listbox',
      'aria-label': label,
      hidden: ''
    });
    input.setAttribute('role', 'combobox');
    input.setAttribute('aria-autocomplete', 'list');
    input.setAttribute('aria-controls', this.list.id);
    input.addEventListener('input', () => this.request());
    input.addEventListener('keydown', event => this.press(event));
    input.addEventListener('blur', () => this.close());
    this.close();
    this.receive = (/** @type {Reply} */ reply) => {
      if (
        reply.type === 'completions' &&
        reply.key === key &&
        reply.serial === this.serial
      ) {
        this.show(reply);
      }
    };
    model.on('msg:custom', this.receive);
  }

  /** Ends listening to the kernel, when the field is no longer shown. */
  dispose() {
    this.model.off('msg:custom', this.receive);
  }

  /** Asks the kernel for completions of the text. */
  request() {
    this.serial += 1;
    this.model.send({
      type: 'complete',
      key: this.key,
      text: this.input.value,
      serial: this.serial
    });
  }

  /** Shows the list, unless the field was left. @param {Reply} reply */
  show({ options, more }) {
    if (document.activeElement !== this.input || options.length === 0) {
      this.close();
      return;
    }
    this.options = options.map(([value, detail], index) =>
      h(
        'li',
        {
          id: `${this.list.id}-${index}`,
          role: 'option',
          'aria-selected': 'false',
          'data-value': value,
          // before the field loses the focus
          onmousedown: (/** @type {MouseEvent} */ event) => {
            event.preventDefault();
            this.choose(value);
          }
        },
        h('span', {}, value),
        h('small', {}, detail)
      )
    );
    this.list.replaceChildren(
      ...this.options,
      ...(more ? [h('li', { role: 'presentation' }, h('small', {}, more))] : [])
    );
    this.list.hidden = false;
    this.input.setAttribute('aria-expanded', 'true');
    this.mark(-1);
  }

  /** Hides the list. A reply that is still under way no longer opens it. */
  close() {
    this.serial += 1;
    this.active = -1;
    this.options = [];
    this.list.hidden = true;
    this.input.setAttribute('aria-expanded', 'false');
    this.input.removeAttribute('aria-activedescendant');
  }

  /** Marks an option. @param {number} index -1 for none */
  mark(index) {
    this.options[this.active]?.setAttribute('aria-selected', 'false');
    this.active = index;
    const option = this.options[index];
    if (!option) {
      this.input.removeAttribute('aria-activedescendant');
      return;
    }
    option.setAttribute('aria-selected', 'true');
    this.input.setAttribute('aria-activedescendant', option.id);
    option.scrollIntoView({ block: 'nearest' });
  }

  /** Sets the field, as if the value had been typed and the field left. @param {string} value */
  choose(value) {
    this.input.value = value;
    this.close();
    this.input.dispatchEvent(new Event('change', { bubbles: true }));
  }

  /** Arrow keys move in the list, Enter chooses, Escape closes. @param {KeyboardEvent} event */
  press(event) {
    const count = this.options.length;
    if (event.key === 'ArrowDown' && count === 0) {
      this.request();
    } else if (event.key === 'ArrowDown') {
      this.mark(this.active + 1 < count ? this.active + 1 : -1);
    } else if (event.key === 'ArrowUp' && count > 0) {
      this.mark(this.active < 0 ? count - 1 : this.active - 1);
    } else if (event.key === 'Enter' && this.active >= 0) {
      this.choose(this.options[this.active].dataset.value ?? '');
    } else if (event.key === 'Escape' && count > 0) {
      this.close();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }
}
