import { createButton, setDisabled } from '../shared/buttons.js';
import { h } from '../shared/dom.js';
import { drawMessages } from './messages.js';

/** @import { Context } from '../shared/model' */

/**
 * Draws the data preview: counts, and examples with the tokens in the loss marked.
 * @param {Context} context
 */
export function dataPreview({ model, el }) {
  const grid = h('div', { class: 'llf-Preview' });
  el.replaceChildren(grid);
  const start = createButton('Preview data', () =>
    model.send({ type: 'preview' })
  );
  const inspect = createButton('Inspect tokens', () =>
    model.send({ type: 'inspect' })
  );
  const cancel = createButton('Cancel', () => model.send({ type: 'cancel' }));
  const hide = createButton(
    'Hide',
    () => model.send({ type: 'hide' }),
    'llf-link'
  );
  const note = h('span', { class: 'llf-secondary', role: 'status' });
  const messages = h('div', {});
  const body = h('div', { class: 'llf-Preview-body' });
  grid.append(
    h('div', { class: 'llf-row' }, start, inspect, cancel, hide, note),
    messages,
    body
  );

  const draw = () => {
    const state = model.get('_state');
    setDisabled(start, state === 'running');
    cancel.hidden = state !== 'running';
    hide.hidden = state !== 'done';
    note.textContent = model.get('_note');
    drawMessages(messages, model.get('_messages'), () => undefined);
    body.replaceChildren(...model.get('_examples').map(example));
    body.hidden = state !== 'done';
  };
  model.on('change', draw);
  draw();
  return () => model.off('change', draw);
}

/** Draws one example; the flag of a part says whether it is in the loss. @param {{ title: string, parts: [string, boolean][] }} example */
function example({ title, parts }) {
  const text = h('p', { class: 'llf-Tokens' });
  for (const [part, trained] of parts) {
    text.append(
      h(
        trained ? 'mark' : 'span',
        { class: trained ? 'is-trained' : undefined },
        part
      )
    );
  }
  return h(
    'article',
    { class: 'llf-Preview-example', 'aria-label': title },
    h('h4', {}, title),
    text
  );
}
