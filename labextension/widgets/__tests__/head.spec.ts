import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import type { Feed } from '../monitor/feed.js';
import { headSection } from '../monitor/head.js';

const HEAD = {
  id: 'one',
  name: 'demo',
  state: 'running',
  live: true,
  description: '',
  status_text: '',
  level: '',
  step: 3,
  total: 20,
  epoch: null,
  epochs: null,
  elapsed: 43,
  remaining: 60,
  checkpoints: [],
  checkpoint_time: null,
  heartbeat: 99,
  numbers: [],
  messages: [{ level: 'warn', text: 'The key `x` has no effect.' }],
  actions: ['stop', 'checkpoint', 'set', 'kill'],
  request_delay: 'within 4 s',
  resume_label: '',
  now: 100,
  peak_learning_rate: '1e-3'
};

let source = 'server';
let now = 100;
const requestKernel = vi.fn().mockResolvedValue({ ok: true, text: '' });
let head: ReturnType<typeof headSection>;
const feed = {
  run: 'one',
  hasKernel: true,
  get: (name: string) => (name === 'head' ? HEAD : undefined),
  on: () => undefined,
  now: () => now,
  source: () => source,
  failure: () => 'The Jupyter server answered 502.',
  refresh: () => undefined,
  requestKernel,
  compareWithServer: async () => undefined
};

beforeEach(() => {
  vi.useFakeTimers();
  [source, now] = ['server', 100];
  requestKernel.mockClear();
  head = headSection(feed as unknown as Feed);
  document.body.replaceChildren(head.box);
});

afterEach(() => {
  head.close();
  vi.useRealTimers();
});

/** The buttons that act, by their accessible names. */
function enabled(): string[] {
  return Array.from(head.box.querySelectorAll('[role=group] button'))
    .filter(node => node.getAttribute('aria-disabled') !== 'true')
    .map(node => node.getAttribute('aria-label') ?? node.textContent!);
}

/** The texts of the line of progress that are seen. */
function times(): string[] {
  return Array.from(
    head.box.querySelectorAll<HTMLElement>('.llf-Monitor-progress > span')
  )
    .filter(node => !node.hidden && node.textContent)
    .map(node => node.textContent!);
}

const ALL = [
  'Stop with checkpoint',
  'Save checkpoint',
  'Set peak learning rate',
  'Set end at step',
  'Kill…'
];

it('offers nothing and tells no times that go on while the run cannot be reached', async () => {
  expect(enabled()).toEqual(ALL);
  expect(times().slice(0, 3)).toEqual([
    'step 3 of 20',
    'elapsed 0:43',
    'remaining 1:00'
  ]);
  [source, now] = ['', 125];
  vi.advanceTimersByTime(1000);
  expect(head.box.textContent).toContain('This view is disconnected.');
  expect(enabled()).toEqual([]);
  expect(times()).toEqual(['step 3 of 20', 'updated 26 s ago']);
  const rate = head.box.querySelector('input')!;
  rate.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter' }));
  await Promise.resolve();
  expect(requestKernel).not.toHaveBeenCalled();
  [source, now] = ['server', 126];
  vi.advanceTimersByTime(1000);
  expect(enabled()).toEqual(ALL);
  expect(times()).toContain('elapsed 1:09');
});

it('shows names in a message as code', () => {
  const message = head.box.querySelector('.llf-Message')!;
  expect(message.textContent).toBe('WarningThe key x has no effect.');
  expect(message.querySelector('code')!.textContent).toBe('x');
});

it('tells a screen reader no end of a run whose number of steps is unknown', () => {
  const bar = head.box.querySelector('[role=progressbar]')!;
  const values = () =>
    ['aria-valuenow', 'aria-valuemax'].map(name => bar.getAttribute(name));
  expect(values()).toEqual(['3', '20']);
  head.close();
  HEAD.total = 0;
  head = headSection(feed as unknown as Feed);
  HEAD.total = 20;
  const other = head.box.querySelector('[role=progressbar]')!;
  expect(other.hasAttribute('aria-valuemax')).toBe(false);
  expect(other.hasAttribute('aria-valuenow')).toBe(false);
});
