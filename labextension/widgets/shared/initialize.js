// What every view does before it is drawn.

/** @import { Model } from './model' */

/**
 * Has a widget ensureConnected its kernel. anywidget gives a module 2 s to load; where that took longer, it refuses every message
 * of the kernel for good. The view then listens to the kernel without it, and requests what it missed.
 * @param {Model} model
 */
async function ensureConnected(model) {
  const own = await model.widget_manager.get_model(model.get('_comm_id'));
  try {
    await own._handle_comm_msg({ content: { data: { method: '' } } }); // does nothing, where it is not refused
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

/** What anywidget calls once the module is loaded; it waits for what is returned. */
export function initialize(/** @type {{model: Model}} */ { model }) {
  ensureConnected(model).catch(() => undefined); // a host whose widgets are made otherwise
}

/**
 * Keeps the keys that are typed into a view's lists, buttons and boxes from the notebook, whose one-letter shortcuts
 * would else insert or cut cells (`a`, `x`); shortcuts with Ctrl, Cmd or Alt stay the notebook's. Text fields need none
 * of it. Set up once a page: each view's module holds a copy of this file.
 */
function keepKeys() {
  const mark = 'llfKeepsKeys';
  if (
    typeof document === 'undefined' ||
    mark in document.documentElement.dataset
  ) {
    return;
  }
  document.documentElement.dataset[mark] = '';
  const suppress = 'data-lm-suppress-shortcuts';
  // before the notebook's own listener, which stands at the document
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
keepKeys();
