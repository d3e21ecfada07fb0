// A heat map of the loss of each token of an answer, for all models.

import { h } from '../shared/dom.js';

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
      'The darker, the less likely the model finds the expected token. Hover over a token for its loss in nats.'
    ),
    ...found.models.map((one, at) =>
      h(
        'div',
        {},
        h('b', { class: 'llf-small' }, columns[at]?.name ?? ''),
        one === null
          ? h('p', { class: 'llf-secondary' }, 'Not measured.')
          : h(
              'p',
              { class: 'llf-Evaluation-tokens' },
              ...one.tokens.map((text, place) =>
                tokenSpan(text, one.losses[place])
              )
            )
      )
    )
  );
}

function tokenSpan(/** @type {string} */ text, /** @type {number} */ loss) {
  const span = h(
    'span',
    {
      title: `${loss.toFixed(3)} nats, probability ${(100 * Math.exp(-loss)).toPrecision(2)} %`
    },
    text
  );
  span.style.setProperty('--heat', `${Math.min(100, (100 * loss) / HIGH)}%`);
  return span;
}
