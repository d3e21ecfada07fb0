import { expect, it } from 'vitest';
import type { Model } from '../shared/model';
import { keptSettings } from '../forms/kept_settings.js';

const OFFER = {
  state: 'offered',
  count: 5,
  time: new Date(2026, 0, 2, 14, 25).getTime() / 1000,
  labels: ['Model', '<b>LoRA rank</b>', 'Steps']
};

/** A line of a form, with what it has sent. */
function line() {
  let kept: object = {};
  const sent: string[] = [];
  const model = {
    get: () => kept,
    send: ({ type }: { type: string }) => sent.push(type)
  };
  const other = document.createElement('button');
  const { node, draw } = keptSettings(model as unknown as Model, () => other);
  document.body.replaceChildren(node, other);
  const show = (next: object) => {
    kept = next;
    draw();
  };
  show({});
  const click = (label: string) => {
    const found = [...node.querySelectorAll('button')].find(
      one => one.textContent === label
    );
    found!.focus();
    found!.click();
  };
  const said = () => node.querySelector('[role=status]')!.textContent;
  return { node, other, sent, show, click, said };
}

it('says which settings are offered, and what became of them', () => {
  const { node, show, said } = line();
  expect(node.hidden).toBe(true);
  show(OFFER);
  expect(node.hidden).toBe(false);
  expect(said()).toMatch(
    /^Your changes from .*14:25 are kept: Model, <b>LoRA rank<\/b>, Steps and 2 more\.$/
  );
  expect(node.querySelector('b')).toBeNull();
  show({ ...OFFER, count: 1, labels: ['Steps'] });
  expect(said()).toMatch(/^Your change from .*14:25 is kept: Steps\.$/);
  show({ state: 'restored', count: 5 });
  expect(said()).toBe('5 settings restored.');
  show({ state: 'discarded', count: 1 });
  expect(said()).toBe('1 setting discarded.');
  show({});
  expect(node.hidden).toBe(true);
});

it('hands the focus from each button to the next one', () => {
  const { other, sent, show, click } = line();
  const focused = () => document.activeElement;
  show(OFFER);
  click('Restore settings');
  show({ state: 'restored', count: 5 });
  expect(focused()!.textContent).toBe('Undo');
  click('Undo');
  show(OFFER);
  expect(focused()!.textContent).toBe('Restore settings');
  click('Discard');
  show({ state: 'discarded', count: 5 });
  expect(focused()!.textContent).toBe('Undo');
  show({});
  expect(focused()).toBe(other);
  expect(sent).toEqual(['restore', 'undo', 'discard']);
});

it('keeps its buttons while an offer changes', () => {
  const { node, show } = line();
  show(OFFER);
  const before = node.querySelector('button');
  show({ ...OFFER, count: 4 });
  expect(node.querySelector('button')).toBe(before);
});
