// An export: its progress with a Stop button, then where it is and the receipt.

import '../shared/llf.css';
import './export.css';
import { createButton, setDisabled } from '../shared/buttons.js';
import { copyButton } from '../shared/clipboard.js';
import { drawIfChanged, h, keepFocus, setText } from '../shared/dom.js';
import { codeNotice } from '../shared/foreign_code.js';
import { initialize } from '../shared/initialize.js';
import { KERNEL_LOST, onKernelLost } from '../shared/kernel.js';
import { receiptSections } from './receipt.js';

/** @import { Context } from '../shared/model' */

/** @type {Record<string, [style: string, word: string]>} */
const STATES = {
  running: ['running', 'running'],
  done: ['finished', 'finished'],
  failed: ['failed', 'failed'],
  stopped: ['stopped', 'stopped'],
  lost: ['lost', 'ended with its kernel']
};

/**
 * Draws the view. The parts stay while their texts change, so that the focus and a selection are kept.
 * @param {Context} context
 */
function render({ model, el }) {
  el.classList.add('llf', 'llf-Export');
  const title = h('h2');
  const state = h('span');
  const stop = createButton('Stop', () => {
    setDisabled(stop, true);
    setText(note, 'Stopping…');
    model.send({ type: 'stop' });
  });
  const again = createButton('Export again', () =>
    model.send({ type: 'again' })
  );
  const head = h(
    'div',
    { class: 'llf-Export-head', tabindex: '-1' },
    title,
    state,
    stop,
    again
  );
  const fill = h('i');
  const bar = h(
    'div',
    {
      class: 'llf-Progress',
      role: 'progressbar',
      'aria-label': 'Progress of the export',
      'aria-valuemin': '0'
    },
    fill
  );
  const note = h('span', { role: 'status' });
  const count = h('span', { class: 'llf-secondary' });
  const message = h('p', { class: 'llf-Export-note llf-row' }, note, count);
  const path = h('code');
  const copy = copyButton(() => path.textContent ?? '', {
    name: 'Copy the path of the folder'
  });
  const folder = h('div', { class: 'llf-Export-folder' }, 'Folder', path, copy);
  const pushed = h('p', { class: 'llf-Export-note' });
  const results = h('div', { class: 'llf-Export-results' });
  const notice = codeNotice({
    purpose: 'The model needs it to be loaded.',
    label: 'Allow this code and export',
    progress: 'Exporting…',
    onAllow: () => model.send({ type: 'allow' }),
    fallback: () => head
  });
  el.replaceChildren(head, bar, message, notice.box, folder, pushed, results);
  let alive = true; // whether the kernel hears of a click

  function draw() {
    notice.show(alive ? model.get('_code') : []);
    const last = model.get('_state');
    const now = last === 'running' && !alive ? 'lost' : last;
    const [style, word] = STATES[now];
    const running = now === 'running';
    setText(title, model.get('_title'));
    const receipt = model.get('_receipt');
    const isFaulty = now === 'done' && receipt.passed === false;
    state.className = `llf-State is-${isFaulty ? 'lost' : style}`;
    setText(state, isFaulty ? 'finished, checks failed' : word);
    message.classList.toggle('is-failed', now === 'failed');
    const text = noteText(now);
    setText(note, text);
    const [done, total] = running ? model.get('_progress') : [0, 0];
    setText(count, total ? `${done} of ${total}` : '');
    bar.classList.toggle('is-unknown', !total);
    fill.style.width = total ? `${(100 * Math.min(done, total)) / total}%` : '';
    if (total) {
      bar.setAttribute('aria-valuemax', String(total));
      bar.setAttribute('aria-valuenow', String(done));
    } else {
      bar.removeAttribute('aria-valuemax');
      bar.removeAttribute('aria-valuenow');
    }
    setText(path, model.get('_folder'));
    setText(pushed, `Pushed to ${model.get('_url')}`);
    keepFocus(
      el,
      () => {
        bar.hidden = stop.hidden = !running;
        again.hidden =
          !alive ||
          (now !== 'stopped' &&
            !(now === 'failed' && model.get('_repeatable')));
        message.hidden = !text;
        pushed.hidden = !model.get('_url');
        folder.hidden = !model.get('_folder');
      },
      () => head
    );
    drawIfChanged(results, receipt, () =>
      receipt.checks ? receiptSections(receipt, model.get('_check_heads')) : []
    );
  }

  /** Returns what is done now or why it ended; without a kernel also what to do. */
  function noteText(/** @type {string} */ now) {
    if (now === 'lost') {
      return `${KERNEL_LOST}, which ended the export. Its folder was not written. Run the cell again.`;
    }
    const text = model.get('_note');
    return alive || now === 'done'
      ? text
      : `${text} ${KERNEL_LOST} since. Run the cell again.`;
  }

  /** A new attempt can be stopped again. */
  function onState() {
    setDisabled(stop, false);
    draw();
  }

  /** @type {[string, () => void][]} */
  const listeners = [
    ['change:_state', onState],
    ['change:_title', draw],
    ['change:_note', draw],
    ['change:_progress', draw],
    ['change:_folder', draw],
    ['change:_url', draw],
    ['change:_receipt', draw],
    ['change:_code', draw]
  ];
  for (const [event, act] of listeners) {
    model.on(event, act);
  }
  draw();
  const endWait = onKernelLost(model, () => {
    alive = false;
    draw();
  });
  return () => {
    endWait();
    notice.close();
    for (const [event, act] of listeners) {
      model.off(event, act);
    }
  };
}

export default { initialize, render };
