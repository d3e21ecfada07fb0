import { drawServers, drawTrained, shareOf } from '../../src/trained';
import { createButton, setDisabled } from '../shared/buttons.js';
import { h } from '../shared/dom.js';
import { drawMessages } from './messages.js';

/** @import { Context } from '../shared/model' */

/**
 * Draws what the form's values will train: the servers that load the result, and on request the table of layers and
 * modules, which a process of the kernel makes.
 * @param {Context} context
 */
export function trainedParameters({ model, el }) {
  const start = createButton('Show what is trained', () =>
    model.send({ type: 'show' })
  );
  const cancel = createButton('Cancel', () => model.send({ type: 'cancel' }));
  const hide = createButton(
    'Hide',
    () => model.send({ type: 'hide' }),
    'llf-link'
  );
  const note = h('span', { class: 'llf-secondary', role: 'status' });
  const messages = h('div', {});
  const servers = h('div', {});
  const body = h('div', {});
  el.replaceChildren(
    h(
      'div',
      { class: 'llf-Preview' },
      servers,
      h('div', { class: 'llf-row' }, start, cancel, hide, note),
      messages,
      body
    )
  );

  /** Draws a part again only if its data has changed, so that what the reader has opened stays open. */
  const drawPart = (
    /** @type {HTMLElement} */ part,
    /** @type {any} */ data,
    /** @type {(data: any) => HTMLElement} */ drawData
  ) => {
    const text = JSON.stringify(data);
    if (part.dataset.drawn !== text) {
      const wasOpen = part.querySelector('details')?.open ?? false;
      part.dataset.drawn = text;
      part.replaceChildren(
        ...(Object.keys(data).length ? [drawData(data)] : [])
      );
      part.querySelector('details')?.toggleAttribute('open', wasOpen);
    }
  };
  const draw = () => {
    const state = model.get('_state');
    setDisabled(start, state === 'running');
    start.hidden = state === 'done';
    cancel.hidden = state !== 'running';
    hide.hidden = state !== 'done';
    note.textContent = model.get('_note');
    drawMessages(messages, model.get('_messages'), () => undefined);
    drawPart(servers, model.get('_servers'), drawServers);
    drawPart(body, state === 'done' ? model.get('_grid') : {}, grid =>
      h(
        'div',
        {},
        h('p', { class: 'llf-Trained-share' }, shareOf(grid)),
        drawTrained(grid)
      )
    );
  };
  model.on('change', draw);
  draw();
  return () => model.off('change', draw);
}
