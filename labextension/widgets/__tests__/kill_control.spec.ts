import { beforeEach, expect, it, vi } from 'vitest';

import { killControl } from '../monitor/kill_control.js';

const onKill = vi.fn();
let control: ReturnType<typeof killControl>;
const button = (name: string): HTMLElement | undefined =>
  [...control.box.querySelectorAll('button')].find(
    node => node.textContent === name
  );

beforeEach(() => {
  onKill.mockClear();
  control = killControl(onKill);
  document.body.replaceChildren(control.box);
  control.show(true, false, undefined);
});

it('keeps the confirmation while the run goes on, with the last checkpoint', () => {
  button('Kill…')!.click();
  const kill = button('Kill now')!;
  expect(document.activeElement).toBe(button('Keep running'));
  expect(control.box.textContent).toContain('there is no checkpoint');
  control.show(true, false, 20);
  expect(control.box.textContent).toContain(
    'steps after checkpoint-20 are lost'
  );
  expect(button('Kill now')).toBe(kill);
  kill.click();
  expect(onKill).toHaveBeenCalledTimes(1);
  expect(document.activeElement).toBe(button('Kill…'));
});

it('drops the confirmation of a run that can no longer be killed', () => {
  button('Kill…')!.click();
  control.show(false, false, 20);
  expect(control.box.childNodes.length).toBe(0);
  control.show(true, false, 20); // resumed: the old question is not asked again
  expect(button('Kill now')).toBeUndefined();
  expect(onKill).not.toHaveBeenCalled();
});

it('asks for nothing while a kill is under way', () => {
  control.show(true, true, 20);
  button('Kill…')!.click();
  expect(button('Kill now')).toBeUndefined();
});
