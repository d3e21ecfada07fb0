import { expect, it } from 'vitest';

import { stepSlider } from '../shared/step_slider.js';

function move(box: HTMLElement, place: number): void {
  const slider = box.querySelector('input')!;
  slider.value = String(place);
  slider.dispatchEvent(new Event('input'));
}

it('follows the newest step until it is moved, and then stays', () => {
  const { box, show, follow } = stepSlider('Step', () => undefined);
  expect(show([], 'none')).toBe(-1);
  expect(show([10, 20], 'none')).toBe(1);
  expect(show([10, 20, 30], 'none')).toBe(2);
  move(box, 1);
  expect(show([10, 20, 30, 40], 'none')).toBe(1);
  expect(show([5, 10, 20, 30, 40], 'none')).toBe(2); // still step 20
  move(box, 4);
  expect(show([5, 10, 20, 30, 40, 50], 'none')).toBe(5); // moved to the newest: follows again
  move(box, 0);
  follow();
  expect(show([5, 10], 'none')).toBe(1);
});

it('tells a screen reader the step, not the place', () => {
  const { box, show } = stepSlider('Step', () => undefined);
  show([100, 200], 'none');
  expect(box.querySelector('input')?.getAttribute('aria-valuetext')).toBe(
    'step 200'
  );
});
