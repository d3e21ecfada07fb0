import { expect, it, vi } from 'vitest';

import {
  createButton,
  disableControls,
  markLocal,
  setDisabled
} from '../shared/buttons.js';

it('disables all that would ask a kernel, for good, and lets its texts be copied', () => {
  const [ask, copy, plain, packed] = [vi.fn(), vi.fn(), vi.fn(), vi.fn()];
  const view = document.createElement('div');
  view.innerHTML =
    '<button>Next</button><svg><g role="button"></g></svg><select></select>' +
    '<input type="checkbox"><input type="file"><input type="text" value="a"><textarea>b</textarea>';
  const again = createButton('Upload', ask);
  view.append(again, markLocal(createButton('Copy', copy)));
  view.querySelector('button')!.addEventListener('click', plain);
  view.querySelector('g')!.addEventListener('click', packed);
  view.querySelector('g')!.addEventListener('keydown', packed);
  disableControls(view);
  setDisabled(again, false); // by an upload that ends later
  for (const node of view.querySelectorAll('button, g')) {
    node.dispatchEvent(new MouseEvent('click', { bubbles: true }));
  }
  view
    .querySelector('g')!
    .dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter' }));
  expect([ask, plain, packed].map(one => one.mock.calls.length)).toEqual([
    0, 0, 0
  ]);
  expect(copy).toHaveBeenCalledTimes(1);
  expect(view.querySelectorAll('[aria-disabled="true"]').length).toBe(3);
  expect(view.querySelectorAll(':disabled').length).toBe(3);
  expect(view.querySelectorAll('[readonly]').length).toBe(2);
});
