// A heat map of the loss of each token of an answer, for all models.

import { h, setText } from '../shared/dom.js';
import { tokenCursor } from '../shared/token_cursor.js';

/** @import { Column, TokenLosses } from './types' */

const HIGH = 6; // nats at which the color is strongest: a token with a probability of 0.25 %

/**
 * @param {{source: string, index: number, models: (TokenLosses | null)[]}} found
 * @param {Column[]} columns
 */
export function tokenLosses(found, columns) {
  const name = `Loss of each token: example ${found.index + 1} of ${found.source}`;
  return h(
    'section',
    { 'aria-label': name },
    h('h3', {}, name),
    h(
      'p',
      { class: 'llf-secondary llf-small' },
      'The darker, the less likely the model finds the expected token. Hover over a token, or use the arrow keys, for its loss in nats.'
    ),
    ...found.models.map((one, at) => {
      const model = columns[at]?.name ?? '';
      return h(
        'div',
        {},
        h('b', { class: 'llf-small' }, model),
        ...(one === null
          ? [h('p', { class: 'llf-secondary' }, 'Not measured.')]
          : tokensOf(one, model))
      );
    })
  );
}

/** Draws the tokens of one model, and below them the loss of the chosen one. @param {TokenLosses} found @param {string} model */
function tokensOf({ tokens, losses }, model) {
  const chosen = h('p', { class: 'llf-secondary llf-small', role: 'status' });
  const { box } = tokenCursor({
    label: `Tokens of ${model}. The arrow keys go from token to token.`,
    className: 'llf-Evaluation-tokens',
    chosenClass: 'is-chosen',
    tokens: tokens.map((text, place) => tokenSpan(text, losses[place])),
    onChoose: index =>
      setText(
        chosen,
        `${JSON.stringify(tokens[index])}: ${lossText(losses[index])}`
      )
  });
  return [box, chosen];
}

function lossText(/** @type {number} */ loss) {
  const percentage = Number((100 * Math.exp(-loss)).toPrecision(2));
  return `${loss.toFixed(3)} nats, probability ${percentage} %`;
}

function tokenSpan(/** @type {string} */ text, /** @type {number} */ loss) {
  const span = h('span', { title: lossText(loss) }, text);
  span.style.setProperty('--heat', `${Math.min(100, (100 * loss) / HIGH)}%`);
  return span;
}
