// Tells a view that its kernel is gone.

/** @import { Model } from './model' */

/** What has happened to the kernel of a view, as the beginning of a sentence. */
export const KERNEL_LOST = 'The kernel was restarted or shut down';

/**
 * Calls `act` when the kernel of a view is restarted or shut down, and soon if that has happened before. From then on
 * nothing that the view sends is received.
 * @param {Model} model
 * @param {() => void} act called once
 * @returns {() => void} ends the wait
 */
export function onKernelLost(model, act) {
  let waits = true;
  const lost = () => {
    if (waits) {
      waits = false;
      act();
    }
  };
  model.on('comm_live_update', lost); // it only ever becomes false
  isLost(model).then(
    found => found && lost(),
    () => undefined // a host with other widget internals
  );
  return () => {
    waits = false;
    model.off('comm_live_update', lost);
  };
}

/** Returns whether the kernel was gone before the view was drawn; anywidget's model does not say it. */
async function isLost(/** @type {Model} */ model) {
  const own = await model.widget_manager.get_model(model.get('_comm_id'));
  return own.comm_live === false;
}
