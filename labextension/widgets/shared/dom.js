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

/** Sets a text only if it differs, so that screen readers do not repeat it and a selection is kept. */
export function setText(
  /** @type {HTMLElement} */ element,
  /** @type {string} */ text
) {
  if (element.textContent !== text) {
    element.textContent = text;
  }
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

/** Formats Unix seconds as local hours and minutes, with the date if it is not today. */
export function formatTime(/** @type {number} */ seconds) {
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
 * Creates a button that copies a text. On a page without a clipboard API (plain http) it selects the element before it.
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
