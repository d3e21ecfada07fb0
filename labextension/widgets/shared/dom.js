// Small DOM tools.

/**
 * Makes an element. Strings become text nodes, so nothing that comes from a run is ever parsed as HTML.
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

/** Sets a text only where it differs, so that screen readers hear no repetition and selections stay. */
export function setText(
  /** @type {HTMLElement} */ element,
  /** @type {string} */ text
) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
}

const REVEAL_MS = 5000;
const FOLLOW_MS = 10000;

/**
 * Scrolls a part of a view to the top once it stands there, and again while it grows, until the reader moves.
 * @param {() => Element | null | undefined} find the part, or nothing while it is not there
 * @param {number} [left] milliseconds to wait for it
 */
export function reveal(find, left = REVEAL_MS) {
  const node = find();
  if (!node) {
    if (left > 0) {
      setTimeout(() => reveal(find, left - 50), 50);
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
  setTimeout(end, FOLLOW_MS);
  follow.observe(node); // which calls it once at once
}

/** A moment as hours and minutes of the reader's day, with the date where it is another day. */
export function clock(/** @type {number} */ seconds) {
  const when = new Date(seconds * 1000);
  const time = when.toLocaleTimeString([], {
    hour: '2-digit',
    minute: '2-digit',
    hour12: false
  });
  if (when.toDateString() === new Date().toDateString()) {
    return time;
  }
  return `${when.toLocaleDateString([], { day: 'numeric', month: 'short' })}, ${time}`;
}

/**
 * A button that copies a text; where a page has no clipboard (plain http) it marks what stands before it.
 * @param {string | (() => string)} text
 */
export function copyButton(text) {
  const button = h(
    'button',
    {
      type: 'button',
      class: 'llf-link',
      onclick: async () => {
        try {
          await navigator.clipboard.writeText(
            typeof text === 'string' ? text : text()
          );
          button.textContent = 'copied';
        } catch {
          if (button.previousElementSibling) {
            getSelection()?.selectAllChildren(button.previousElementSibling);
          }
          button.textContent = 'selected';
        }
        setTimeout(() => {
          button.textContent = 'copy';
        }, 2000);
      }
    },
    'copy'
  );
  return button;
}
