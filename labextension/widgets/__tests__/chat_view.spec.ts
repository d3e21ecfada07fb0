import { afterEach, beforeEach, expect, it, vi } from 'vitest';

import view from '../chat/view.js';

/** The part of a widget's model that the view uses. */
class Model {
  sent: Record<string, unknown>[] = [];
  listeners = new Map<string, (...values: unknown[]) => void>();
  constructor(readonly values: Record<string, unknown>) {}
  get = (name: string): unknown => this.values[name];
  send = (content: object): void => {
    this.sent.push(content as Record<string, unknown>);
  };
  on = (event: string, act: (...values: unknown[]) => void): void => {
    this.listeners.set(event, act);
  };
  off = (event: string): void => {
    this.listeners.delete(event);
  };
  set(name: string, value: unknown): void {
    this.values[name] = value;
    this.listeners.get(`change:${name}`)?.();
  }
  message(content: object): void {
    this.listeners.get('msg:custom')?.(content);
  }
}

const named = (name: string) => ({
  name, about: 'base model', phase: 'ready', progress: '', reason: '', memory: 1e9, engine: 'e', tools: false,
  sees: false, thinks: false, live: false
}); // prettier-ignore
const reply = (model: string, values: object = {}) => ({
  id: `r-${model}`, model, sequence: 0, state: 'waiting', text: '', thinking: '', calls: [], tokens: [], footer: '',
  error: null, question: null, note: '', version: [1, 1], kept: [], ...values
}); // prettier-ignore
const turn = (...replies: object[]) => ({
  id: 't',
  text: 'Why?',
  pictures: [],
  version: [1, 1],
  replies
});
const update = (sequence: number, text: string) => ({
  type: 'updates',
  updates: [
    { id: 'r-a', sequence, state: 'answering', text, thinking: '', tokens: [] }
  ]
});

let model: Model;
let el: HTMLElement;
let close: () => void;
beforeEach(() => {
  vi.useFakeTimers();
  el = document.createElement('div');
  document.body.replaceChildren(el);
  model = new Model({
    _models: [named('a'), named('b')],
    _turns: [],
    _settings: {
      system: '', temperature: '0', top_p: '1', max_tokens: '512', seed: '', probabilities: false, thinking: ''
    }, // prettier-ignore
    _errors: {},
    _note: '',
    _kept: [],
    _code: []
  });
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  close = view.render({ model: model as any, el });
  model.sent = [];
});
afterEach(() => {
  close();
  vi.useRealTimers();
});

const button = (name: string): HTMLButtonElement =>
  [...el.querySelectorAll('button')].find(
    one => one.textContent === name && !one.closest('[hidden]')
  )!;
const question = (): HTMLTextAreaElement =>
  el.querySelector('.llf-Chat-compose textarea')!;
const markdown = () => el.querySelector('.llf-Markdown')?.textContent?.trim();
const press = (node: Element, key: string, ctrlKey = false) =>
  node.dispatchEvent(
    new KeyboardEvent('keydown', { key, ctrlKey, bubbles: true })
  );

it('sends a question by Ctrl Enter, once, and keeps the focus', () => {
  question().focus();
  press(question(), 'Enter', true);
  expect(model.sent).toEqual([]);
  question().value = 'Why?';
  press(question(), 'Enter');
  expect(model.sent).toEqual([]);
  press(question(), 'Enter', true);
  expect(model.sent).toEqual([
    { type: 'send', text: 'Why?', pictures: [], request: expect.any(String) }
  ]);
  expect(question().value).toBe('');
  expect(document.activeElement).toBe(question());
  model.set('_turns', [turn(reply('a'), reply('b'))]);
  question().value = 'And?';
  press(question(), 'Enter', true);
  expect(model.sent.length).toBe(1);
  press(question(), 'Escape');
  expect(model.sent[1]).toEqual({ type: 'stop' });
});

it('adds the updates of a reply in order, and asks for all of it if one was lost', () => {
  model.set('_turns', [turn(reply('a'), reply('b'))]);
  model.message(update(1, 'One '));
  model.message(update(1, 'One ')); // what the trait had already
  model.message(update(2, '**two**'));
  vi.advanceTimersByTime(200);
  expect(markdown()).toBe('One two');
  expect(el.querySelector('[aria-busy=true]')).not.toBeNull();
  model.message(update(4, 'four'));
  expect(model.sent).toEqual([{ type: 'open' }]);
  const done = reply('a', { state: 'done', text: 'All.', footer: '3 tokens' });
  model.set('_turns', [turn(done, reply('b'))]);
  expect(markdown()).toBe('All.');
  expect(el.querySelector('footer')?.textContent).toContain('3 tokens');
});

it('draws at most ten times a second while text arrives', () => {
  model.set('_turns', [turn(reply('a'))]);
  const text = el.querySelector('.llf-Markdown')!;
  const drawn = vi.spyOn(text, 'insertBefore');
  for (let number = 1; number <= 40; number++) {
    model.message(update(number, `word${number} `));
    vi.advanceTimersByTime(25);
  }
  vi.advanceTimersByTime(200);
  expect(text.textContent).toContain('word40');
  expect(drawn.mock.calls.length).toBeLessThanOrEqual(12);
  expect(drawn.mock.calls.length).toBeGreaterThan(3);
});

it('hands the focus from Stop to Again when a reply ends', () => {
  model.set('_turns', [turn(reply('a'))]);
  button('Stop').focus();
  model.set('_turns', [turn(reply('a', { state: 'done', text: 'x' }))]);
  expect(document.activeElement).toBe(button('Again'));
});

it('asks an edited question as a new version, and leaves the field by Escape', () => {
  model.set('_turns', [turn(reply('a', { state: 'done', text: 'x' }))]);
  button('Edit').click();
  const field = el.querySelector<HTMLTextAreaElement>(
    '.llf-Question-form textarea'
  )!;
  expect(document.activeElement).toBe(field);
  expect(field.value).toBe('Why?');
  press(field, 'Escape');
  expect(document.activeElement).toBe(button('Edit'));
  button('Edit').click();
  field.value = 'Why not?';
  press(field, 'Enter', true);
  expect(model.sent).toEqual([
    { type: 'edit', turn: 't', text: 'Why not?', pictures: [] }
  ]);
});

it('offers what repairs an error, and the versions of a reply', () => {
  const fixes = [{ action: 'shorten', label: 'Leave out the oldest turns' }];
  const error = { message: 'The prompt is too long.', fixes };
  model.set('_turns', [
    turn(reply('a', { state: 'failed', error, version: [2, 3] }))
  ]);
  expect(el.querySelector('[role=alert]')?.textContent).toContain('too long');
  button('Leave out the oldest turns').click();
  button('‹').click();
  expect(model.sent).toEqual([
    { type: 'fix', turn: 't', model: 'a', fix: 'shorten' },
    { type: 'reply_version', turn: 't', model: 'a', step: -1 }
  ]);
});

it('asks before a model that has called tools again and again goes on', () => {
  const question = {
    message: 'The model has made 10 rounds of tool calls. Continue?',
    fixes: [{ action: 'continue', label: 'Continue' }]
  };
  model.set('_turns', [turn(reply('a', { state: 'done', question }))]);
  expect(el.querySelector('.llf-Reply [role=status]')?.textContent).toBe(
    `Note${question.message}Continue`
  );
  button('Continue').click();
  expect(model.sent).toEqual([
    { type: 'fix', turn: 't', model: 'a', fix: 'continue' }
  ]);
});

it('begins to load a stopped model while the first question is typed', () => {
  model.set('_models', [{ ...named('a'), phase: 'stopped' }]);
  for (const text of ['W', 'Wh']) {
    question().value = text;
    question().dispatchEvent(new Event('input'));
  }
  expect(model.sent).toEqual([{ type: 'start' }]);
});

it('keeps a check box as it was clicked until the kernel has answered', () => {
  const box = el.querySelector<HTMLInputElement>('[type=checkbox]')!;
  const settings = model.values._settings as object;
  box.click();
  model.set('_settings', { ...settings, max_tokens: '9' }); // of an earlier change
  expect(box.checked).toBe(true);
  model.set('_settings', { ...settings, probabilities: true });
  model.set('_settings', { ...settings, probabilities: false });
  expect(box.checked).toBe(false);
});

it('hands the focus to Undo when a reply has been kept', () => {
  const answered = { state: 'done', text: 'x' };
  model.set('_turns', [turn(reply('a', answered))]);
  button('Good').focus();
  button('Good').click();
  expect(model.sent).toEqual([
    { type: 'keep', turn: 't', model: 'a', what: 'good' }
  ]);
  const kept = [{ kind: 'ratings', label: 'Rated good', text: '' }];
  model.set('_turns', [turn(reply('a', { ...answered, kept }))]);
  expect(document.activeElement).toBe(button('Undo'));
});

it('shows the corrected text of a kept reply, and corrects it further', () => {
  const kept = [
    { kind: 'examples', label: 'Kept as an example', text: 'Yes.' }
  ];
  model.set('_turns', [turn(reply('a', { state: 'done', text: 'No.', kept }))]);
  expect(el.querySelector('.llf-Corrected')?.textContent).toBe('Yes.');
  button('Correct…').click();
  expect(
    el.querySelector<HTMLTextAreaElement>('.llf-Reply textarea')?.value
  ).toBe('Yes.');
});

it('says which replies have no probabilities while the box is checked', () => {
  const done = { state: 'done', text: 'x' };
  model.set('_turns', [
    turn(reply('a', { ...done, tokens: [['x', -1, []]] }), reply('b', done))
  ]);
  const said = () =>
    /[12] repl.* no probabilities/.exec(el.textContent ?? '')?.[0];
  expect(said()).toBeUndefined();
  const settings = model.values._settings as object;
  model.set('_settings', { ...settings, probabilities: true });
  expect(said()).toBe('1 reply has no probabilities');
  model.set('_turns', [turn(reply('a', done), reply('b', done))]);
  expect(said()).toBe('2 replies have no probabilities');
  model.set('_settings', { ...settings, probabilities: false });
  expect(said()).toBeUndefined();
});

it('offers to switch thinking off only if a model can think', () => {
  const thinking: HTMLSelectElement = el.querySelector(
    '[aria-label="Thinking before the reply"]'
  )!;
  expect(thinking.hidden).toBe(true);
  model.set('_models', [named('a'), { ...named('b'), thinks: true }]);
  expect(thinking.hidden).toBe(false);
  thinking.value = 'off';
  thinking.dispatchEvent(new Event('change'));
  expect(model.sent).toEqual([
    { type: 'settings', changes: { thinking: 'off' } }
  ]);
});

it('tells a screen reader which of the settings are invalid', () => {
  const invalid = () =>
    [...el.querySelectorAll('[aria-invalid="true"]')].map(
      node => el.querySelector(`label[for="${node.id}"]`)?.textContent
    );
  expect(invalid()).toEqual([]);
  model.set('_errors', { top_p: 'Top p is 2. Expected at most 1.' });
  expect(invalid()).toEqual(['Top p']);
  model.set('_errors', {});
  expect(invalid()).toEqual([]);
});
