// Small DOM tools. Joined in front of a view's module by `llf_widgets.static.text`, so it has no exports.

/**
 * Makes an element. Strings become text nodes, so nothing that comes from a run is ever parsed as HTML.
 * @param {string} tag
 * @param {Record<string, string | boolean | EventListener | null | undefined>} [attributes] `onclick` and the like take functions
 * @param {...(Node | string | null | undefined)} children
 * @returns {HTMLElement}
 */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === 'function') element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter(child => child !== null && child !== undefined));
  return element;
}

/** Sets a text only where it differs, so that screen readers hear no repetition and selections stay. */
function say(/** @type {HTMLElement} */ element, /** @type {string} */ text) {
  if (element.textContent !== text) element.textContent = text;
}

const REVEAL_MS = 5000;
const FOLLOW_MS = 10000;

/**
 * Scrolls a part of a view to the top once it stands there, and again while it grows, until the reader moves.
 * @param {() => Element | null | undefined} find the part, or nothing while it is not there
 * @param {number} [left] milliseconds to wait for it
 */
function reveal(find, left = REVEAL_MS) {
  const node = find();
  if (!node) {
    if (left > 0) setTimeout(() => reveal(find, left - 50), 50);
    return;
  }
  const moves = ['wheel', 'touchstart', 'pointerdown', 'keydown'];
  const follow = new ResizeObserver(() => node.scrollIntoView({ block: 'start' }));
  const end = () => {
    follow.disconnect();
    moves.forEach(move => window.removeEventListener(move, end, true));
  };
  moves.forEach(move => window.addEventListener(move, end, true));
  setTimeout(end, FOLLOW_MS);
  follow.observe(node); // which calls it once at once
}

/** Seconds as `0:12`, `7:10`, `2:03:11` or `3 d 4 h`. */
function duration(/** @type {number} */ seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole >= 172800) return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
  const two = (/** @type {number} */ n) => String(n).padStart(2, '0');
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes}:${two(whole % 60)}`;
  return `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`;
}

// Numbers are written as by llf_core/runs/formatting.py; tests/number_formats.json holds both to the same cases.

/** A quantity, such as a loss: four digits, at most four decimals; below 0.001 two and an exponent. */
function quantity(/** @type {number | string} */ logged) {
  const value = Number(logged);
  const size = Math.abs(value);
  if (!Number.isFinite(value)) return Number.isNaN(value) ? 'NaN' : value > 0 ? 'infinity' : '-infinity';
  if (size === 0) return '0';
  if (size < 1e-3 || size >= 1e9) {
    const [mantissa, power] = value.toExponential(1).split('e');
    return `${Number(mantissa)}e${Number(power)}`;
  }
  const power = Number(size.toExponential(3).split('e')[1]);
  return thousands(value.toFixed(Math.min(4, Math.max(0, 3 - power))));
}

/** Bytes with three digits and a decimal unit: `9.80 MB`. */
function byteSize(/** @type {number} */ amount) {
  for (const [unit, factor] of /** @type {[string, number][]} */ ([['TB', 1e12], ['GB', 1e9], ['MB', 1e6], ['kB', 1e3]])) {
    const scaled = Number((amount / factor).toPrecision(3));
    if (scaled >= 1) return `${thousands(scaled.toFixed(Math.max(0, 2 - Math.floor(Math.log10(scaled)))))} ${unit}`;
  }
  return `${amount.toFixed(0)} bytes`;
}

/** A number's text with its thousands separated. */
function thousands(/** @type {string} */ text) {
  const [whole, rest] = text.split('.');
  return [whole.replace(/\B(?=(\d{3})+$)/g, ','), ...(rest === undefined ? [] : [rest])].join('.');
}

/** A moment as hours and minutes of the reader's day, with the date where it is another day. */
function clock(/** @type {number} */ seconds) {
  const when = new Date(seconds * 1000);
  const time = when.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', hour12: false });
  if (when.toDateString() === new Date().toDateString()) return time;
  return `${when.toLocaleDateString([], { day: 'numeric', month: 'short' })}, ${time}`;
}

/**
 * Keeps the keys that are typed into a view's lists, buttons and boxes from the notebook, whose one-letter shortcuts
 * would else insert or cut cells (`a`, `x`); shortcuts with Ctrl, Cmd or Alt stay the notebook's. Text fields need none
 * of it. Set up once a page: each view's module holds a copy of this file.
 */
function keepKeys() {
  const mark = 'llfKeepsKeys';
  if (typeof document === 'undefined' || mark in document.documentElement.dataset) return;
  document.documentElement.dataset[mark] = '';
  const suppress = 'data-lm-suppress-shortcuts';
  // before the notebook's own listener, which stands at the document
  window.addEventListener('keydown', event => {
    const target = event.target;
    if (!(target instanceof HTMLElement || target instanceof SVGElement) || !target.closest('.llf')) return;
    target.toggleAttribute(suppress, !(event.ctrlKey || event.metaKey || event.altKey));
  }, true);
}
keepKeys();

/**
 * A button that copies a text; where a page has no clipboard (plain http) it marks what stands before it.
 * @param {string | (() => string)} text
 */
function copyButton(text) {
  const button = h('button', { type: 'button', class: 'llf-link', onclick: async () => {
    try {
      await navigator.clipboard.writeText(typeof text === 'string' ? text : text());
      button.textContent = 'copied';
    } catch {
      if (button.previousElementSibling) getSelection()?.selectAllChildren(button.previousElementSibling);
      button.textContent = 'selected';
    }
    setTimeout(() => { button.textContent = 'copy'; }, 2000);
  } }, 'copy');
  return button;
}

/**
 * Has a widget hear its kernel. anywidget gives a module 2 s to load; where that took longer, it refuses every message
 * of the kernel for good. The kernel is heard without it then, and is asked for what was missed.
 * @param {any} model
 */
async function hear(model) {
  const own = await model.widget_manager.get_model(model.get('_own'));
  try {
    await own._handle_comm_msg({ content: { data: { method: '' } } }); // does nothing, where it is not refused
  } catch {
    let prototype = own;
    while (!Object.hasOwn(prototype, '_handle_comm_msg')) prototype = Object.getPrototypeOf(prototype);
    own.comm.on_msg(Object.getPrototypeOf(prototype)._handle_comm_msg.bind(own));
    own.comm.send({ method: 'request_state' }, own.callbacks());
  }
}

/** What anywidget calls once the module is loaded; it waits for what is returned. */
function initialize(/** @type {{model: any}} */ { model }) {
  hear(model).catch(() => undefined); // a host whose widgets are made otherwise
}
