// Markdown of a model's reply as elements. What a model writes is untrusted: its HTML is shown as text, its images are
// not loaded, its links lead to http(s) only and show where.

import DOMPurify from 'dompurify';
import { Lexer, Marked } from 'marked';
import { drawKeyed, h } from '../shared/dom.js';

const LINK = /^https?:\/\//i;

/** Escapes a text for HTML. */
function escape(/** @type {string} */ text) {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll("'", '&#39;');
}

/** Returns the host of an address, for display; empty if the address is invalid. */
function hostOf(/** @type {string} */ address) {
  try {
    return new URL(address).host;
  } catch {
    return '';
  }
}

/*
 * Many rules of Markdown look for an end that may not be there, from each beginning anew: the time grows with the square
 * of a text. So rules of a line see at most so many characters, and nested quotes and lists have a depth.
 */
const MAX_LINE = 2000;
const MAX_MATH = 1000;
const MAX_DEPTH = 20;

class BoundedLexer extends Lexer {
  #depth = 0;

  /** @type {Lexer['blockTokens']} */
  blockTokens(
    /** @type {string} */ source,
    /** @type {any} */ tokens = [],
    clipped = false
  ) {
    if (this.#depth === MAX_DEPTH) {
      tokens.push({ type: 'text', raw: source, text: source });
      return tokens;
    }
    this.#depth++;
    try {
      return super.blockTokens(source, tokens, clipped);
    } finally {
      this.#depth--;
    }
  }

  /** @type {Lexer['inlineTokens']} */
  inlineTokens(source, tokens = []) {
    let rest = source;
    while (rest.length > MAX_LINE) {
      const head = rest.slice(0, MAX_LINE);
      const length =
        head.lastIndexOf('\n') + 1 || head.lastIndexOf(' ') + 1 || MAX_LINE;
      super.inlineTokens(rest.slice(0, length), tokens);
      rest = rest.slice(length);
    }
    return super.inlineTokens(rest, tokens);
  }
}

const DISPLAY = `\\$\\$[^$]{1,${MAX_MATH}}\\$\\$|\\\\\\[[^]{1,${MAX_MATH}}?\\\\\\]`;
const DISPLAY_MATH = new RegExp(`^(?:${DISPLAY})`);
const INLINE_MATH = new RegExp(
  `^(?:${DISPLAY}|\\\\\\([^]{1,${MAX_MATH}}?\\\\\\)|\\$(?! )[^$\\n]*[^$\\n ]\\$(?!\\d))`
);

/** Returns where display math interrupts a paragraph: at the first line that begins with it. */
function displayStart(/** @type {string} */ source) {
  const found = /\n {0,3}(?=\$\$|\\\[)/.exec(source.slice(0, MAX_LINE));
  const start = found ? found.index + found[0].length : 0;
  return found && DISPLAY_MATH.test(source.slice(start)) ? start : undefined;
}

/** Returns where math may begin in a line. */
function inlineStart(/** @type {string} */ source) {
  const index = source.search(/\$|\\[([]/);
  return index < 0 ? undefined : index;
}

/**
 * Math keeps its source, so that Markdown changes nothing in it and the page's typesetter finds it.
 * @type {{name: string, level: 'block' | 'inline', start: (source: string) => number | undefined, rule: RegExp}[]}
 */
const MATH = [
  {
    name: 'displayMath',
    level: 'block',
    start: displayStart,
    rule: DISPLAY_MATH
  },
  { name: 'math', level: 'inline', start: inlineStart, rule: INLINE_MATH }
];

const marked = new Marked({
  gfm: true,
  breaks: true,
  extensions: MATH.map(({ name, level, start, rule }) => ({
    name,
    level,
    start,
    tokenizer(/** @type {string} */ source) {
      const found = rule.exec(source);
      return found ? { type: name, raw: found[0], text: found[0] } : undefined;
    },
    renderer: (/** @type {{text?: string}} */ { text = '' }) => {
      const tag = level === 'block' ? 'p' : 'span';
      return `<${tag} class="llf-Math">${escape(text)}</${tag}>`;
    }
  })),
  renderer: {
    html: ({ text, block }) =>
      block ? `<p class="llf-Source">${escape(text.trim())}</p>` : escape(text),
    image: ({ href, text }) => `[${escape(text || 'image')}: ${escape(href)}]`,
    link({ href, tokens }) {
      const text = this.parser.parseInline(tokens);
      if (!LINK.test(href) || !hostOf(href)) {
        return `${text} (${escape(href)})`;
      }
      const shown = tokens.map(token => token.raw).join('');
      const host = shown === href ? '' : ` (${escape(hostOf(href))})`;
      return `<a href="${escape(href)}" target="_blank" rel="noopener noreferrer">${text}</a>${host}`;
    },
    heading({ tokens }) {
      return `<p class="llf-Heading"><strong>${this.parser.parseInline(tokens)}</strong></p>`;
    },
    checkbox: ({ checked }) => (checked ? '☑ ' : '☐ '),
    code: ({ text }) => `<pre tabindex="0"><code>${escape(text)}</code></pre>`
  }
});

const ALLOWED = {
  ALLOWED_TAGS: [
    'a',
    'blockquote',
    'br',
    'code',
    'del',
    'em',
    'hr',
    'li',
    'ol',
    'p',
    'pre',
    'span',
    'strong',
    'table',
    'tbody',
    'td',
    'th',
    'thead',
    'tr',
    'ul'
  ],
  ALLOWED_ATTR: [
    'align',
    'class',
    'href',
    'rel',
    'start',
    'tabindex',
    'target'
  ],
  ALLOWED_URI_REGEXP: LINK,
  ADD_URI_SAFE_ATTR: ['align', 'rel', 'start', 'tabindex', 'target'],
  ALLOW_ARIA_ATTR: false,
  ALLOW_DATA_ATTR: false,
  RETURN_DOM_FRAGMENT: /** @type {const} */ (true)
};

/** Returns the blocks of a text with the tokens in them, in time that grows with its length. */
export function tokenize(/** @type {string} */ text) {
  return new BoundedLexer(marked.defaults).lex(text);
}

/**
 * Draws the Markdown of a reply. A block that stays the same keeps its element, so that a reader can select what has
 * been written while the rest arrives.
 * @param {HTMLElement} element holds nothing else
 * @param {string} text
 */
export function drawMarkdown(element, text) {
  const blocks = tokenize(text).filter(
    ({ type }) => type !== 'space' && type !== 'def'
  );
  drawKeyed(
    element,
    blocks,
    block => block.raw.trimEnd(),
    block => {
      const html = marked.parser([block]);
      const box = h('div', { class: 'llf-Block' });
      box.append(DOMPurify.sanitize(html, ALLOWED));
      for (const table of box.querySelectorAll('table')) {
        table.replaceWith(
          h(
            'div',
            { class: 'llf-Scroll', tabindex: '0' },
            table.cloneNode(true)
          )
        );
      }
      return box;
    }
  );
}

/** Has the page typeset the math of a finished reply, if it can; otherwise the source stays. */
export function typesetMath(/** @type {HTMLElement} */ element) {
  const host =
    /** @type {{llfHost?: {typeset?: (node: HTMLElement) => void}, MathJax?: {typesetPromise?: (nodes: HTMLElement[]) => Promise<void>}}} */ (
      globalThis
    );
  for (const node of /** @type {NodeListOf<HTMLElement>} */ (
    element.querySelectorAll('.llf-Math:not(.is-set)')
  )) {
    node.classList.add('is-set');
    if (host.llfHost?.typeset) {
      host.llfHost.typeset(node);
    } else {
      host.MathJax?.typesetPromise?.([node])?.catch(() => undefined);
    }
  }
}
