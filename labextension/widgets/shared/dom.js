// DOM functions that all views use.

/**
 * Creates an element. Strings become text nodes, so data of a run is never parsed as HTML.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string | boolean | null | undefined | ((event: any) => unknown)>} [attributes] `onclick` and the like take functions
 * @param {...(Node | string | null | undefined)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) {
      continue;
    }
    if (typeof value === 'function') {
      element.addEventListener(name.slice(2), value);
    } else {
      element.setAttribute(name, value === true ? '' : value);
    }
  }
  element.append(
    ...children.filter(child => child !== null && child !== undefined)
  );
  return element;
}

/**
 * Returns an id that no other element of the page has. A counter would not do: each widget loads a module of its own,
 * so the counters of two views of a kind would agree.
 */
export function uniqueId(/** @type {string} */ prefix) {
  return `${prefix}-${crypto.getRandomValues(new Uint32Array(2)).join('-')}`;
}

/** Sets a text only if it differs, so that screen readers do not repeat it and a selection is kept. */
export function setText(
  /** @type {HTMLElement} */ element,
  /** @type {string} */ text
) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

/**
 * Puts the elements of `wanted` into `parent` in their order. Those that are there already stay in place, because an
 * element that is moved loses the focus and a click under way.
 * @param {Element} parent
 * @param {readonly Element[]} wanted
 */
export function placeChildren(parent, wanted) {
  const kept = new Set(wanted);
  for (const child of [...parent.childNodes]) {
    if (!kept.has(/** @type {Element} */ (child))) {
      child.remove();
    }
  }
  wanted.forEach((node, index) => {
    if (parent.childNodes[index] !== node) {
      parent.insertBefore(node, parent.childNodes[index] ?? null);
    }
  });
}

/** @type {WeakMap<Element, Map<string, HTMLElement>>} */
const keyedChildren = new WeakMap();

/**
 * Draws a list with one element for each item. The element of an item stays while its key stays, so that data that
 * arrives takes no click, focus, selection or scroll position from a reader.
 * @template Item
 * @param {Element} parent holds nothing else
 * @param {readonly Item[]} items
 * @param {(item: Item) => string} key the item's name; its content as JSON where a changed item is drawn again
 * @param {(item: Item) => HTMLElement} make creates the element of a key
 * @param {(node: HTMLElement, item: Item) => void} [update] shows an item in its element, also in a new one
 */
export function drawKeyed(parent, items, key, make, update = () => undefined) {
  const before = keyedChildren.get(parent) ?? new Map();
  /** @type {Map<string, HTMLElement>} */
  const after = new Map();
  for (const item of items) {
    let name = key(item);
    while (after.has(name)) {
      name += '\n'; // another item that is alike
    }
    const node = before.get(name) ?? make(item);
    update(node, item);
    after.set(name, node);
  }
  keyedChildren.set(parent, after);
  placeChildren(parent, [...after.values()]);
}

/** @type {WeakMap<Element, string>} */
const drawnData = new WeakMap();

/**
 * Draws the content of an element again only if its data has changed. What the reader has opened stays open, and the
 * focus stays on the control of the same name.
 * @param {HTMLElement} element
 * @param {unknown} data JSON
 * @param {() => (Node | string)[]} make returns the content
 * @param {() => HTMLElement} [fallback] gets the focus if its control is gone
 */
export function drawIfChanged(element, data, make, fallback) {
  const text = JSON.stringify(data);
  if (drawnData.get(element) === text) {
    return;
  }
  drawnData.set(element, text);
  const fill = () => {
    const open = [...element.querySelectorAll('details')].map(
      details => details.open
    );
    element.replaceChildren(...make());
    element.querySelectorAll('details').forEach((details, index) => {
      details.open = open[index] ?? details.open;
    });
  };
  keepFocus(element, fill, fallback);
}

const CONTROLS =
  'button, a[href], input, select, textarea, summary, [tabindex]';

/** Returns whether an element is in the page and not inside a hidden one. */
function isShown(/** @type {Element} */ node) {
  return node.isConnected && !node.closest('[hidden]');
}

/** Returns the name by which a reader knows a control. */
function controlName(/** @type {Element} */ node) {
  const text = node.tagName === 'SELECT' ? '' : node.textContent;
  return `${node.tagName} ${node.getAttribute('aria-label') ?? text}`;
}

/**
 * Changes an element. If the change removes or hides the control that has the focus, the control of the same name gets
 * it, or else `fallback`; otherwise the focus would fall back to the page.
 * @param {HTMLElement} element
 * @param {() => void} change
 * @param {() => HTMLElement} [fallback]
 */
export function keepFocus(element, change, fallback) {
  const focused = element.contains(document.activeElement)
    ? document.activeElement
    : null;
  const name = focused ? controlName(focused) : '';
  change();
  const active = document.activeElement;
  const handedOn = active !== focused && element.contains(active); // by a part of it
  if (!focused || isShown(focused) || handedOn) {
    return;
  }
  const controls = /** @type {HTMLElement[]} */ ([
    ...element.querySelectorAll(CONTROLS)
  ]);
  const same = controls.find(
    node => isShown(node) && controlName(node) === name
  );
  (same ?? fallback?.())?.focus({ preventScroll: true });
}

const MAX_WAIT_MS = 5000;
const FOLLOW_GROWTH_MS = 10000;

/**
 * Scrolls a part of a view to the top once it exists, and again while it grows, until the reader scrolls or types.
 * @param {() => Element | null | undefined} find returns the part once it exists
 * @param {number} [timeLeft] milliseconds to wait for it
 */
export function scrollToWhenReady(find, timeLeft = MAX_WAIT_MS) {
  const node = find();
  if (!node) {
    if (timeLeft > 0) {
      setTimeout(() => scrollToWhenReady(find, timeLeft - 50), 50);
    }
    return;
  }
  const moves = ['wheel', 'touchstart', 'pointerdown', 'keydown'];
  const follow = new ResizeObserver(() =>
    node.scrollIntoView({ block: 'start' })
  );
  const end = () => {
    follow.disconnect();
    moves.forEach(move => window.removeEventListener(move, end, true));
  };
  moves.forEach(move => window.addEventListener(move, end, true));
  setTimeout(end, FOLLOW_GROWTH_MS);
  follow.observe(node); // calls the observer once immediately
}
