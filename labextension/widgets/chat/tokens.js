// The tokens of a reply, each with its probability and what else was likely in its place.

import { h } from '../shared/dom.js';
import { tokenCursor } from '../shared/token_cursor.js';

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
  const { box } = tokenCursor({
    label:
      'Tokens with their probabilities. The arrow keys go from token to token.',
    className: 'llf-Chat-tokens',
    chosenClass: 'is-chosen',
    tokens: spans,
    onChoose: showAlternatives
  });

  function showAlternatives(/** @type {number} */ index) {
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

  return [box, tip];
}
