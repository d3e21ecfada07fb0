import { textWithCode } from '../../src/text_with_code';
import { createButton, setDisabled } from '../shared/buttons.js';
import {
  drawIfChanged,
  h,
  scrollToWhenReady,
  setText,
  uniqueId
} from '../shared/dom.js';
import { onKernelLost } from '../shared/kernel.js';
import { drawMessages } from './messages.js';
import { pendingStart } from './pending_start.js';

/** @import { Context } from '../shared/model' */
/** @import { Message } from './messages.js' */

/** Says that the kernel has shut down, and how the settings come back. @param {boolean} kept @returns {Message} */
function kernelLost(kept) {
  const next = kept
    ? 'Run this cell again. The new form offers to restore your changes.'
    : 'To keep the settings, copy the YAML. Then run this cell again and paste it.';
  return {
    level: 'error',
    text: `The kernel of this form has shut down. Started runs are not affected. ${next}`,
    fixes: []
  };
}

/**
 * Draws Start, *Add to queue*, the run's name, and the sentence that says why Start is disabled or what it will do.
 * @param {Context} context
 */
export function startControls({ model, el }) {
  let alive = true;
  const start = createButton(
    'Start',
    () => pending.send({ type: 'start' }),
    'llf-primary'
  );
  const queue = createButton('Add to queue', () =>
    pending.send({ type: 'queue' })
  );
  queue.title = 'Starts when no other run is active on this machine';
  const name = h('input', {
    type: 'text',
    id: uniqueId('llf-name'),
    spellcheck: 'false'
  });
  name.addEventListener('change', () => {
    model.set('_name', name.value);
    model.save_changes();
  });
  const label = h('label', { class: 'llf-secondary', for: name.id }, 'Name');
  const status = h('p', {
    id: uniqueId('llf-why'),
    role: 'status'
  });
  const messages = h('div', { class: 'llf-Start-messages' });
  for (const node of [start, queue]) {
    node.setAttribute('aria-describedby', status.id);
  }
  el.replaceChildren(
    h(
      'section',
      { class: 'llf-Start', 'aria-label': 'Start' },
      h('span', { class: 'llf-Start-buttons' }, start, queue),
      label,
      name,
      status,
      messages
    )
  );

  const draw = () => {
    const waiting = pending.state.waiting;
    for (const node of [start, queue]) {
      setDisabled(node, waiting || !model.get('_ready'));
    }
    setText(start, waiting ? 'Starting…' : 'Start');
    queue.hidden = !model.get('_busy');
    if (document.activeElement !== name) {
      name.value = model.get('_name');
    }
    name.placeholder = model.get('_suggested');
    /** @type {{ text: string, key?: string }[]} */
    const sentence = waiting
      ? [{ text: pending.text() }]
      : model.get('_sentence');
    drawIfChanged(
      status,
      sentence,
      () =>
        sentence.flatMap(part =>
          part.key
            ? [
                createButton(
                  part.text,
                  () => model.send({ type: 'focus_field', key: part.key }),
                  'llf-link'
                )
              ]
            : textWithCode(part.text)
        ),
      () => start
    );
    const list = alive
      ? model.get('_messages')
      : [kernelLost(model.get('keeps_settings'))];
    drawMessages(messages, list, (message, fix) =>
      model.send({ type: 'fix', message, fix })
    );
  };
  const pending = pendingStart(model, draw);
  const onMessage = (/** @type {any} */ content) =>
    content.type === 'reveal' &&
    scrollToWhenReady(() =>
      el.closest('.llf-Studio')?.querySelector(`.${content.part}`)
    );
  model.on('change', draw);
  model.on('msg:custom', onMessage);
  draw();
  const endWait = onKernelLost(model, () => {
    alive = false;
    draw();
  });
  return () => {
    endWait();
    pending.dispose();
    model.off('msg:custom', onMessage);
    model.off('change', draw);
  };
}
