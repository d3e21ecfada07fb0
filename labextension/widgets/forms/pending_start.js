// The time between a click on Start and the kernel's answer.

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
