import { createButton, setDisabled } from '../shared/buttons.js';
import { h, keepFocus, setText } from '../shared/dom.js';
import { drawMessages } from './messages.js';

/** @import { Model } from '../shared/model' */

/**
 * Creates the buttons for a result that a process of the kernel makes on request: start, *Cancel* and *Hide*, with a
 * note and messages. The model has the traits `_state` (`idle`, `running` or `done`), `_note` and `_messages`.
 * @param {Model} model
 * @param {string} label of the start button
 * @param {string} type of the message that starts the process
 * @param {HTMLElement[]} [more] further buttons
 */
export function resultControls(model, label, type, more = []) {
  const send = (/** @type {string} */ type) => () => model.send({ type });
  const start = createButton(label, send(type));
  const cancel = createButton('Cancel', send('cancel'));
  const hide = createButton('Hide', send('hide'), 'llf-link');
  const note = h('span', { class: 'llf-secondary', role: 'status' });
  const messages = h('div', {});
  const row = h(
    'div',
    { class: 'llf-row' },
    start,
    ...more,
    cancel,
    hide,
    note
  );

  return {
    nodes: [row, messages],
    /** Shows the state. @param {boolean} [startsAgain] whether a finished result can be made again */
    draw(startsAgain = true) {
      const state = model.get('_state');
      setDisabled(start, state === 'running');
      keepFocus(
        row,
        () => {
          start.hidden = state === 'done' && !startsAgain;
          cancel.hidden = state !== 'running';
          hide.hidden = state !== 'done';
        },
        () => (start.hidden ? hide : start)
      );
      setText(note, model.get('_note'));
      drawMessages(messages, model.get('_messages'), () => undefined);
    }
  };
}
