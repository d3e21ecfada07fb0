import { h } from '../shared/dom.js';
import { button, drawMessages, setDisabled } from './messages.js';

/** @import { Context } from '../shared/model' */

/**
 * A first view of the data: counts, and examples with the trained part marked.
 * @param {Context} context
 */
export function dataPreview({ model, el }) {
  el.classList.add('llf-Section-el');
  const grid = h('div', { class: 'llf-Preview' });
  el.replaceChildren(grid);
  const start = button('Preview data', () => model.send({ type: 'preview' }));
  const every = button('Inspect tokens', () => model.send({ type: 'inspect' }));
  const cancel = button('Cancel', () => model.send({ type: 'cancel' }));
  const close = button('Hide', () => model.send({ type: 'hide' }), 'llf-link');
  const note = h('span', { class: 'llf-2', role: 'status' });
  const messages = h('div', {});
  const body = h('div', { class: 'llf-Preview-body' });
  grid.append(
    h('div', { class: 'llf-row' }, start, every, cancel, close, note),
    messages,
    body
  );

  const draw = () => {
    const state = model.get('_state');
    setDisabled(start, state === 'running');
    cancel.hidden = state !== 'running';
    close.hidden = state !== 'done';
    note.textContent = model.get('_note');
    drawMessages(messages, model.get('_messages'), () => undefined);
    body.replaceChildren(...model.get('_examples').map(example));
    body.hidden = state !== 'done';
  };
  model.on('change', draw);
  draw();
  return () => model.off('change', draw);
}

/** @param {{ title: string, parts: [string, boolean][] }} example */
function example({ title, parts }) {
  const text = h('p', { class: 'llf-Tokens' });
  for (const [part, trained] of parts) {
    text.append(
      h(trained ? 'mark' : 'span', { class: trained ? 'tr' : undefined }, part)
    );
  }
  return h(
    'article',
    { class: 'llf-Preview-example', 'aria-label': title },
    h('h4', {}, title),
    text
  );
}
