// Switches between the versions of a question or reply: ‹ 2/3 ›.

import { createButton, setDisabled } from '../shared/buttons.js';
import { h, setText } from '../shared/dom.js';

/**
 * Creates the switch, which is hidden while there is one version.
 * @param {string} what the versions are of, for screen readers
 * @param {(step: -1 | 1) => void} onStep
 */
export function versionSwitch(what, onStep) {
  const previous = createButton('‹', () => onStep(-1), 'llf-link');
  const next = createButton('›', () => onStep(1), 'llf-link');
  previous.setAttribute('aria-label', `Earlier version of the ${what}`);
  next.setAttribute('aria-label', `Later version of the ${what}`);
  const place = h('span');
  const box = h(
    'span',
    {
      class: 'llf-Versions',
      role: 'group',
      'aria-label': `Versions of the ${what}`,
      hidden: true
    },
    previous,
    place,
    next
  );
  let [version, count] = [1, 1];
  let off = false;

  function draw() {
    box.hidden = count < 2;
    setText(place, `${version}/${count}`);
    setDisabled(previous, off || version <= 1);
    setDisabled(next, off || version >= count);
  }

  return {
    box,
    /** Shows which version of how many is chosen. @param {[number, number]} place */
    show(place) {
      [version, count] = place;
      draw();
    },
    disable(/** @type {boolean} */ disabled) {
      off = disabled;
      draw();
    }
  };
}
