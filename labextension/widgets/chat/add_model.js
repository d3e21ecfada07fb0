// Adds a model to a chat: a link, and the field that it opens.

import { createButton } from '../shared/buttons.js';
import { h } from '../shared/dom.js';

/** @import { Send } from './types' */

/**
 * Creates the link and the field.
 * @param {Send} send
 */
export function addModelControls(send) {
  const open = createButton('Add a model…', () => show(true), 'llf-link');
  const field = h('input', {
    type: 'text',
    'aria-label': 'Model to add',
    placeholder: 'Run, RUN@STEP, folder or hub id',
    onkeydown: (/** @type {KeyboardEvent} */ event) => {
      if (event.key === 'Enter') {
        add();
      } else if (event.key === 'Escape') {
        event.stopPropagation();
        show(false);
      }
    }
  });
  const form = h(
    'div',
    { class: 'llf-row llf-Chat-adding', hidden: true },
    field,
    createButton('Add', add),
    createButton('Cancel', () => show(false))
  );

  function show(/** @type {boolean} */ on) {
    form.hidden = !on;
    (on ? field : open).focus();
  }

  function add() {
    const target = field.value.trim();
    if (target) {
      send({ type: 'add', target });
      field.value = '';
      show(false);
    }
  }

  return { open, form };
}
