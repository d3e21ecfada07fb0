// A slider over logged steps.

import { h, setText } from './dom.js';
import { formatCount } from '../../src/numbers';

/**
 * Creates a slider that follows the newest step until the reader moves it; it then stays at that step.
 * @param {string} label
 * @param {() => void} onMove
 */
export function stepSlider(label, onMove) {
  /** @type {number[]} */
  let known = [];
  let chosen = -1; // step; -1: the newest
  // otherwise JupyterLab would handle the arrow keys
  const slider = h('input', {
    type: 'range',
    min: '0',
    step: '1',
    'aria-label': label,
    'data-lm-suppress-shortcuts': 'true',
    oninput: () => {
      const place = Number(slider.value);
      chosen = place === known.length - 1 ? -1 : known[place];
      onMove();
    }
  });
  const first = h('span', { class: 'llf-secondary llf-small' });
  const last = h('span', { class: 'llf-secondary llf-small llf-push' });
  const box = h('div', {}, slider, h('div', { class: 'llf-row' }, first, last));

  /**
   * Draws the slider and returns the index of its step; -1 if there are no steps.
   * @param {number[]} steps rising
   * @param {string} none text for screen readers if there are no steps
   */
  function show(steps, none) {
    known = steps;
    const count = steps.length;
    const after = steps.findIndex(step => step > chosen);
    const now = chosen < 0 || after < 0 ? count - 1 : Math.max(0, after - 1);
    slider.hidden = count < 2;
    slider.max = String(Math.max(0, count - 1));
    slider.value = String(now);
    slider.setAttribute('aria-valuetext', count ? `step ${steps[now]}` : none);
    setText(first, count > 1 ? `step ${formatCount(steps[0])}` : '');
    setText(last, count > 1 ? `step ${formatCount(steps[count - 1])}` : '');
    return now;
  }

  return {
    box,
    show,
    follow: () => {
      chosen = -1;
    }
  };
}
