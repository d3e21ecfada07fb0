import { beforeEach, expect, it, vi } from 'vitest';

import { createButton, setDisabled } from '../shared/buttons.js';
import { drawIfChanged, drawKeyed, h, keepFocus } from '../shared/dom.js';

let box: HTMLElement;
beforeEach(() => {
  box = h('div');
  document.body.replaceChildren(box);
});

function draw(...items: string[]): HTMLElement[] {
  drawKeyed(
    box,
    items,
    item => item[0],
    () => h('button'),
    (node, item) => {
      node.textContent = item;
    }
  );
  return [...box.children] as HTMLElement[];
}

it('keeps the element of an item whose label changes', () => {
  const [stop, kill] = draw('stop', 'kill');
  kill.focus();
  const moved = vi.spyOn(box, 'insertBefore');
  expect(draw('a new one', 'stop now', 'kill')).toEqual([
    expect.any(HTMLElement),
    stop,
    kill
  ]);
  expect(stop.textContent).toBe('stop now');
  expect(moved).toHaveBeenCalledTimes(1); // only the new one: a moved element loses a click under way
  expect(draw('kill')).toEqual([kill]);
  expect(document.activeElement).toBe(kill);
});

it('draws items that are alike side by side', () => {
  const [first, second] = draw('same', 'same');
  expect(first).not.toBe(second);
  expect(draw('same', 'same')).toEqual([first, second]);
});

it('draws content again only if its data has changed', () => {
  const make = vi.fn(() => [h('details', {}, h('summary', {}, 'Why'))]);
  drawIfChanged(box, { a: 1 }, make);
  box.querySelector('details')!.open = true;
  box.querySelector('summary')!.focus();
  drawIfChanged(box, { a: 1 }, make);
  expect(make).toHaveBeenCalledTimes(1);
  drawIfChanged(box, { a: 2 }, make);
  expect(make).toHaveBeenCalledTimes(2);
  expect(box.querySelector('details')!.open).toBe(true);
  expect(document.activeElement).toBe(box.querySelector('summary'));
});

it('moves the focus of a control that is removed or hidden, and no other', () => {
  const [stop, kill] = draw('stop', 'kill');
  box.tabIndex = -1;
  stop.focus();
  keepFocus(
    box,
    () => kill.remove(),
    () => box
  );
  expect(document.activeElement).toBe(stop);
  keepFocus(
    box,
    () => {
      stop.hidden = true;
    },
    () => box
  );
  expect(document.activeElement).toBe(box);
});

it('keeps the focus on a button that is disabled, and takes no clicks', () => {
  const act = vi.fn();
  const button = createButton('Start', act);
  box.append(button);
  button.focus();
  setDisabled(button, true);
  button.click();
  expect(act).not.toHaveBeenCalled();
  expect(document.activeElement).toBe(button);
  setDisabled(button, false);
  button.click();
  expect(act).toHaveBeenCalledTimes(1);
});
