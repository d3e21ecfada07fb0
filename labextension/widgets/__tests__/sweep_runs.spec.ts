import { expect, it } from 'vitest';

import { sweepRunTable } from '../forms/sweep_runs.js';

it('does not count runs that failed, were stopped or were lost as finished', () => {
  const states = ['finished', 'failed', 'failed', 'stopped', 'lost', 'queued'];
  const rows = states.map((state, place) => ({
    id: `${place}`,
    values: ['1e-4'],
    state,
    step: '',
    result: '',
    best: false
  }));
  const view = { keys: ['learning_rate'], metric: 'loss', live: true, rows };
  const get = (name: string) => (name === 'view' ? view : '');
  const model = { get, on: () => undefined, off: () => undefined };
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  sweepRunTable({ model: model as any, el: document.body });
  expect(document.querySelector('[role=status]')?.textContent).toBe(
    '1 of 6 runs finished, 2 failed, 1 stopped, 1 lost'
  );
});
