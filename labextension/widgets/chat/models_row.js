// The models of a chat: what each is, and what its engine does.

import { createButton } from '../shared/buttons.js';
import { drawIfChanged, h } from '../shared/dom.js';

/** @import { ChatModel, Send } from './types' */

/**
 * Creates the row of the models' names.
 * @param {Send} send
 */
export function modelsRow(send) {
  const names = h('div', { class: 'llf-Chat-names' });
  const box = h('div', { class: 'llf-Chat-head', tabindex: '-1' }, names);
  return {
    box,
    /** @param {ChatModel[]} models */
    show(models) {
      drawIfChanged(
        names,
        models,
        () =>
          models.map(model =>
            h(
              'div',
              {},
              h('b', {}, model.name),
              models.length > 1
                ? removeButton(model.name, () =>
                    send({ type: 'remove', model: model.name })
                  )
                : null,
              h('p', { class: 'llf-secondary llf-small' }, model.about),
              h('p', { class: 'llf-small', role: 'status' }, ...phaseOf(model)),
              h('div', { class: 'llf-row' }, ...weightLinks(model, send))
            )
          ),
        () => box
      );
    }
  };
}

/** Draws what brings newer weights of a run. */
function weightLinks(
  /** @type {ChatModel} */ { name, run, live },
  /** @type {Send} */ send
) {
  const links = [
    run ? ['newest', 'Use the newest weights'] : null,
    live ? ['checkpoint', 'Save a checkpoint and use it'] : null
  ];
  return links.flatMap(link => {
    if (!link) {
      return [];
    }
    const [type, label] = link;
    const button = createButton(
      label,
      () => send({ type, model: name }),
      'llf-link llf-small'
    );
    button.setAttribute('aria-label', `${label}: ${name}`);
    return [button];
  });
}

function removeButton(
  /** @type {string} */ name,
  /** @type {() => void} */ act
) {
  const button = createButton('Remove', act, 'llf-link llf-small');
  button.setAttribute('aria-label', `Remove ${name}`);
  return h('span', {}, ' ', button);
}

/** Draws what the engine of a model does. */
function phaseOf(/** @type {ChatModel} */ { phase, progress, reason }) {
  if (phase === 'starting') {
    return [
      h('span', { class: 'llf-State is-starting' }, progress || 'Starting')
    ];
  }
  if (phase === 'ready') {
    return [h('span', { class: 'llf-State is-finished' }, 'Ready')];
  }
  if (phase === 'failed') {
    return [
      h('span', { class: 'llf-State is-failed' }, 'Failed'),
      ` ${reason}`
    ];
  }
  return [
    h(
      'span',
      { class: 'llf-State is-stopped' },
      reason || 'Starts with the first question'
    )
  ];
}
