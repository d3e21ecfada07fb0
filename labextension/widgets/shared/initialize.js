// What every view does before it draws.

/** @import { Model } from './model' */

/**
 * Makes sure that a widget receives the messages of its kernel. If a module takes longer than 2 s to load, anywidget
 * permanently refuses these messages. The widget then listens to the kernel without anywidget, and requests its state.
 * @param {Model} model
 */
async function listenToKernel(model) {
  const own = await model.widget_manager.get_model(model.get('_comm_id'));
  noticeShutdown(own);
  try {
    await own._handle_comm_msg({ content: { data: { method: '' } } }); // has no effect unless anywidget refuses it
  } catch {
    let prototype = own;
    while (!Object.hasOwn(prototype, '_handle_comm_msg')) {
      prototype = Object.getPrototypeOf(prototype);
    }
    own.comm.on_msg(
      Object.getPrototypeOf(prototype)._handle_comm_msg.bind(own)
    );
    own.comm.send({ method: 'request_state' }, own.callbacks());
  }
}

/**
 * Marks a widget as disconnected when its kernel is shut down or another one takes its place. ipywidgets does so only
 * when the kernel is restarted.
 */
function noticeShutdown(/** @type {any} */ own) {
  own.widget_manager.kernel?.disposed.connect(() => {
    own.comm_live = false;
  });
}

/** anywidget calls this once the module is loaded. */
export function initialize(/** @type {{model: Model}} */ { model }) {
  listenToKernel(model).catch(() => undefined); // a host with other widget internals
}

/**
 * Suppresses one-letter shortcuts of the notebook, such as `a` and `x`, while the focus is in a view's list, button or
 * check box; otherwise a key press would insert or cut cells. Shortcuts with Ctrl, Cmd or Alt still work. This is set up
 * once for each page, although each view's module contains a copy of this file.
 */
function suppressNotebookShortcuts() {
  const mark = 'llfKeepsKeys';
  if (
    typeof document === 'undefined' ||
    mark in document.documentElement.dataset
  ) {
    return;
  }
  document.documentElement.dataset[mark] = '';
  const suppress = 'data-lm-suppress-shortcuts';
  // runs before the notebook's own listener, which is on the document
  window.addEventListener(
    'keydown',
    event => {
      const target = event.target;
      if (
        !(target instanceof HTMLElement || target instanceof SVGElement) ||
        !target.closest('.llf')
      ) {
        return;
      }
      target.toggleAttribute(
        suppress,
        !(event.ctrlKey || event.metaKey || event.altKey)
      );
    },
    true
  );
}
suppressNotebookShortcuts();
