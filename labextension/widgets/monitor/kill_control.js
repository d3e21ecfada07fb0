import { createButton, setDisabled } from '../shared/buttons.js';
import { h, placeChildren, setText } from '../shared/dom.js';

/**
 * Creates the button that kills the trainer, with its confirmation. The confirmation stays until it is answered or the
 * run can no longer be killed.
 * @param {() => void} onKill
 */
export function killControl(onKill) {
  let asking = false;
  let possible = false;
  const box = h('span', { class: 'llf-row llf-push' });
  const ask = createButton('Kill…', () => answer(true, keep));
  ask.dataset.action = 'kill';
  const consequence = h('span', { role: 'alert' });
  const kill = createButton(
    'Kill now',
    () => {
      answer(false, ask);
      onKill();
    },
    'llf-danger'
  );
  const keep = createButton('Keep running', () => answer(false, ask));

  function answer(
    /** @type {boolean} */ open,
    /** @type {HTMLElement} */ focused
  ) {
    asking = open;
    place();
    focused.focus();
  }

  function place() {
    placeChildren(
      box,
      !possible ? [] : asking ? [consequence, kill, keep] : [ask]
    );
  }

  return {
    box,
    /**
     * @param {boolean} canKill
     * @param {boolean} disabled whether the run is about to be killed, or cannot be reached
     * @param {number | undefined} checkpoint the last one
     */
    show(canKill, disabled, checkpoint) {
      possible = canKill;
      asking &&= canKill;
      setDisabled(ask, disabled);
      setDisabled(kill, disabled);
      const lost =
        checkpoint === undefined
          ? 'there is no checkpoint to resume from'
          : `steps after checkpoint-${checkpoint} are lost`;
      setText(consequence, `This ends the trainer immediately; ${lost}.`);
      place();
    }
  };
}
