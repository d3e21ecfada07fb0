// The tokens of a reply, each with its probability and what else was likely in its place.

import { h } from '../shared/dom.js';

/** @import { ReplyToken } from './types' */

const UNLIKELY = 0.1;
const POSSIBLE = 0.5;

/** Returns a token as text in quotation marks, with invisible characters escaped. */
function quoted(/** @type {string} */ text) {
  return JSON.stringify(text);
}

/**
 * Draws tokens. The pointer or the arrow keys choose one, whose probability stands below.
 * @param {ReplyToken[]} tokens
 * @returns {HTMLElement[]}
 */
export function tokensOf(tokens) {
  let chosen = -1;
  const tip = h('div', {
    class: 'llf-Tip llf-Probabilities',
    role: 'status',
    hidden: true
  });
  const spans = tokens.map(([text, logprob]) => {
    const probability = Math.exp(logprob);
    const likelihood =
      probability < UNLIKELY
        ? 'is-unlikely'
        : probability < POSSIBLE
          ? 'is-possible'
          : null;
    return h('span', { class: likelihood }, text);
  });
  const line = h(
    'div',
    {
      class: 'llf-Chat-tokens',
      tabindex: '0',
      role: 'group',
      'aria-label':
        'Tokens with their probabilities. The arrow keys go from token to token.',
      onkeydown: (/** @type {KeyboardEvent} */ event) => {
        const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (step) {
          event.preventDefault();
          choose(Math.min(Math.max(chosen + step, 0), tokens.length - 1));
        }
      },
      onpointerover: (/** @type {PointerEvent} */ event) => {
        const index = spans.indexOf(
          /** @type {HTMLSpanElement} */ (event.target)
        );
        if (index >= 0) {
          choose(index);
        }
      }
    },
    ...spans
  );

  function choose(/** @type {number} */ index) {
    spans[chosen]?.classList.remove('is-chosen');
    chosen = index;
    spans[index].classList.add('is-chosen');
    const [text, logprob, top] = tokens[index];
    /** @type {[string, number][]} */
    const rows = top.some(([other]) => other === text)
      ? top
      : [[text, logprob], ...top];
    tip.hidden = false;
    tip.replaceChildren(
      h(
        'table',
        { 'aria-label': 'Likely tokens in this place' },
        h(
          'tbody',
          {},
          ...rows.map(([other, value]) => {
            const probability = Math.exp(value);
            return h(
              'tr',
              { class: other === text ? 'is-chosen' : null },
              h('td', {}, quoted(other)),
              h('td', { class: 'llf-num' }, probability.toFixed(3)),
              h(
                'td',
                { 'aria-hidden': 'true' },
                h('i', { style: `width: ${Math.round(96 * probability)}px` })
              )
            );
          })
        )
      )
    );
  }

  return [line, tip];
}
