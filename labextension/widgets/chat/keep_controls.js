// Keeps a reply as training data: as an example, as the better one of a pair, rated, or with a corrected text.

import { createButton } from '../shared/buttons.js';
import { drawIfChanged, h } from '../shared/dom.js';

/** @import { ChatReply, Send } from './types' */

/**
 * Creates the controls of a reply.
 * @param {Send} send
 * @param {string} turn id of the question
 * @param {string} model name of the model
 */
export function keepControls(send, turn, model) {
  const keep = (/** @type {object} */ values) =>
    send({ type: 'keep', turn, model, ...values });
  const corrected = h('div');
  const buttons = h('span', { class: 'llf-Keep' });
  const field = h('textarea', {
    rows: '4',
    'aria-label': `Corrected text of the reply of ${model}`,
    onkeydown: (/** @type {KeyboardEvent} */ event) => {
      if (event.key === 'Escape') {
        event.stopPropagation();
        close();
      }
    }
  });
  const form = h(
    'div',
    { class: 'llf-Question-form', hidden: true },
    field,
    h(
      'div',
      { class: 'llf-row' },
      createButton('Keep as an example', () => finish({ what: 'example' })),
      createButton('Keep as better than the original', () =>
        finish({ what: 'pair' })
      ),
      createButton('Cancel', close)
    )
  );
  let text = '';

  function finish(/** @type {object} */ values) {
    if (field.value.trim()) {
      keep({ ...values, text: field.value });
      close();
    }
  }

  function close() {
    form.hidden = true;
    buttons.querySelector('button')?.focus();
  }

  function correct() {
    field.value = text;
    form.hidden = false;
    field.focus();
  }

  /** Creates a link; its name for screen readers has the model. */
  function link(
    /** @type {string} */ label,
    /** @type {() => void} */ act,
    /** @type {string} */ name = label
  ) {
    const button = createButton(label, act, 'llf-link');
    button.setAttribute('aria-label', `${name}: ${model}`);
    return button;
  }

  return {
    corrected,
    buttons,
    form,
    /** @param {ChatReply} reply @param {string[]} others models that have answered this question in other words */
    show(reply, others) {
      text = reply.kept.find(one => one.text)?.text || reply.text;
      drawIfChanged(corrected, reply.kept, () =>
        reply.kept
          .filter(one => one.text)
          .flatMap(one => [
            h(
              'p',
              { class: 'llf-secondary llf-small' },
              `${one.label} with the corrected text:`
            ),
            h('div', { class: 'llf-Corrected' }, one.text)
          ])
      );
      buttons.hidden = reply.state !== 'done' || !reply.text;
      drawIfChanged(
        buttons,
        [reply.kept, others],
        () => {
          const kinds = new Set(reply.kept.map(({ kind }) => kind));
          return [
            ...reply.kept.map(({ kind, label }) =>
              h(
                'span',
                {},
                h('b', {}, label),
                ' ',
                link(
                  'Undo',
                  () => send({ type: 'undo', turn, model, kind }),
                  `Undo ${label}`
                )
              )
            ),
            ...(kinds.has('examples')
              ? []
              : [link('Keep as an example', () => keep({ what: 'example' }))]),
            ...(kinds.has('pairs')
              ? []
              : others.map(other =>
                  link(
                    others.length > 1
                      ? `Better than ${other}`
                      : 'Better than the other',
                    () => keep({ what: 'pair', other })
                  )
                )),
            ...(kinds.has('ratings')
              ? []
              : [
                  link('Good', () => keep({ what: 'good' }), 'Rate as good'),
                  link('Bad', () => keep({ what: 'bad' }), 'Rate as bad')
                ]),
            link('Correct…', correct)
          ];
        },
        () => buttons.querySelector('button') ?? field
      );
    }
  };
}
