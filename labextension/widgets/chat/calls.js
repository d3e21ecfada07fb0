// The calls of tools of a reply with their results; a result that is missing can be typed.

import { createButton } from '../shared/buttons.js';
import { h } from '../shared/dom.js';

/** @import { ChatReply } from './types' */

/**
 * Draws the calls of a reply.
 * @param {ChatReply['calls']} calls
 * @param {boolean} canAnswer whether the reply waits for results
 * @param {(results: Record<string, string>) => void} onResults
 */
export function callsOf(calls, canAnswer, onResults) {
  /** @type {Record<string, HTMLTextAreaElement>} */
  const fields = {};
  const rows = calls.map(({ id, name, arguments: given, result }) => {
    if (result === null && canAnswer) {
      fields[id] = h('textarea', {
        rows: '2',
        'aria-label': `Result of ${name}`,
        placeholder: 'Result'
      });
    }
    return h(
      'div',
      { class: 'llf-Call' },
      h('code', {}, `${name}(${given})`),
      result === null
        ? (fields[id] ?? null)
        : h('pre', { tabindex: '0', 'aria-label': `Result of ${name}` }, result)
    );
  });
  const send = createButton('Send the results', () =>
    onResults(
      Object.fromEntries(
        Object.entries(fields).map(([id, field]) => [id, field.value])
      )
    )
  );
  return [...rows, ...(Object.keys(fields).length ? [send] : [])];
}
