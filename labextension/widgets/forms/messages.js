// Buttons, copying and the level messages of the form.

import { h } from '../shared/dom.js';

/** @import { Model } from '../shared/model' */

/**
 * @param {string} label
 * @param {() => void} act
 * @param {string} [className]
 * @returns {HTMLButtonElement}
 */
export function button(label, act, className) {
  const node = h('button', { type: 'button', class: className }, label);
  node.addEventListener(
    'click',
    () => node.getAttribute('aria-disabled') !== 'true' && act()
  );
  return node;
}

/**
 * Turns a button off or on. One that is off keeps the focus, which `disabled` would throw back to the page's beginning.
 * @param {HTMLButtonElement} node made by `button`
 * @param {boolean} off
 */
export function setDisabled(node, off) {
  if ((node.getAttribute('aria-disabled') === 'true') !== off) {
    node.setAttribute('aria-disabled', String(off));
  }
}

/**
 * A sentence whose `backticked` parts are code.
 * @param {string} text
 * @returns {Node[]}
 */
export function renderText(text) {
  return text
    .split('`')
    .map((part, i) =>
      i % 2 ? h('code', {}, part) : document.createTextNode(part)
    );
}

const SLOW_KERNEL_MS = 2000;

/**
 * The time between a click on a button that starts something and the kernel's `answered`.
 * @param {Model} model
 * @param {() => void} draw called when it begins, when the kernel is slow, and when it ends
 */
export function pendingStart(model, draw) {
  const state = { waiting: false, slow: false };
  let timer = 0;
  const over = () => {
    clearTimeout(timer);
    state.waiting = state.slow = false;
    draw();
  };
  const onMessage = (/** @type {any} */ content) =>
    content.type === 'done' && over();
  model.on('msg:custom', onMessage);
  model.on('comm_live_update', over);
  return {
    state,
    /** What stands beside the button meanwhile. */
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
      model.off('comm_live_update', over);
    }
  };
}

/** @param {string} text */
export async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const area = h('textarea', { 'aria-hidden': 'true', class: 'llf-sr' });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand('copy');
  area.remove();
}

/**
 * @typedef {{ level: 'error' | 'warning' | 'note', text: string, fixes: string[], copy?: string }} Message
 */

/**
 * Draws messages into `el`, and only what changed, so that a screen reader hears each one once.
 * @param {HTMLElement} el
 * @param {Message[]} messages
 * @param {(message: number, fix: number) => void} onFix
 */
export function drawMessages(el, messages, onFix) {
  const drawn = JSON.stringify(messages);
  if (el.dataset.drawn === drawn) {
    return;
  }
  el.dataset.drawn = drawn;
  el.replaceChildren(
    ...messages.map((message, index) => {
      const word = message.level[0].toUpperCase() + message.level.slice(1);
      const body = h('div', {}, ...renderText(message.text));
      const fixes = message.fixes.map((label, fix) =>
        button(label, () => onFix(index, fix))
      );
      if (message.copy) {
        const label = 'Copy the command';
        const again = button(label, async () => {
          await copy(message.copy ?? '');
          again.textContent = 'Copied';
          setTimeout(() => (again.textContent = label), 2000);
        });
        fixes.push(again);
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
        h('b', {}, word),
        body
      );
    })
  );
  el.hidden = messages.length === 0;
}
