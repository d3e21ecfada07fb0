// Waiting for Start, copying, and the error, warning and note messages of the form.

import { textWithCode } from '../../src/text_with_code';
import { createButton } from '../shared/buttons.js';
import { copyButton } from '../shared/clipboard.js';
import { drawIfChanged, h } from '../shared/dom.js';

/** @import { Model } from '../shared/model' */

const SLOW_KERNEL_MS = 2000;

/**
 * Tracks the time between a click on a Start button and the kernel's message `done`, so that the button can show it.
 * @param {Model} model
 * @param {() => void} draw called when the wait begins, when the kernel is slow, and when the wait ends
 */
export function pendingStart(model, draw) {
  const state = { waiting: false, slow: false };
  let timer = 0;
  const finish = () => {
    clearTimeout(timer);
    state.waiting = state.slow = false;
    draw();
  };
  const onMessage = (/** @type {any} */ content) =>
    content.type === 'done' && finish();
  model.on('msg:custom', onMessage);
  model.on('comm_live_update', finish);
  return {
    state,
    /** The text beside the button during the wait. */
    text: () =>
      state.slow
        ? 'The kernel is running a cell. The run starts when the cell finishes.'
        : 'Starting…',
    send: (/** @type {object} */ content) => {
      state.waiting = true;
      timer = setTimeout(() => {
        state.slow = true;
        draw();
      }, SLOW_KERNEL_MS);
      draw();
      model.send(content);
    },
    dispose: () => {
      clearTimeout(timer);
      model.off('msg:custom', onMessage);
      model.off('comm_live_update', finish);
    }
  };
}

/**
 * @typedef {{ level: 'error' | 'warning' | 'note', text: string, fixes: string[], copy?: string }} Message
 */

/**
 * Draws messages into `el` if they have changed, so that a screen reader announces each one only once.
 * @param {HTMLElement} el
 * @param {Message[]} messages
 * @param {(message: number, fix: number) => void} onFix
 * @param {() => HTMLElement} [fallback] gets the focus if the button of a fix is gone
 */
export function drawMessages(el, messages, onFix, fallback) {
  const make = () =>
    messages.map((message, index) => {
      const levelText = message.level[0].toUpperCase() + message.level.slice(1);
      const body = h('div', {}, ...textWithCode(message.text));
      const fixes = message.fixes.map((label, fix) =>
        createButton(label, () => onFix(index, fix))
      );
      if (message.copy) {
        const command = message.copy;
        const label = 'Copy the command';
        fixes.push(copyButton(() => command, { label, className: '' }));
      }
      if (fixes.length) {
        body.append(h('div', { class: 'llf-Message-fix' }, ...fixes));
      }
      const style = { error: 'is-error', warning: 'is-warn', note: '' }[
        message.level
      ];
      const role = message.level === 'error' ? 'alert' : 'status';
      return h(
        'div',
        { class: `llf-Message ${style}`, role },
        h('b', {}, levelText),
        body
      );
    });
  drawIfChanged(el, messages, make, fallback);
  el.hidden = messages.length === 0;
}

/** Returns the message about a file that was chosen and cannot be read. @param {string} name @returns {Message} */
export function unreadableFile(name) {
  return {
    level: 'error',
    text: `${name} cannot be read. Choose it again, or another file.`,
    fixes: []
  };
}
