import { act } from 'react';
import { expect, it } from 'vitest';

import {
  host,
  model,
  api,
  execute,
  openMenu,
  show,
  showRuns,
  rows,
  button
} from './drawn_panel';
import { chart, keyMetric, run } from './runs';

it('shows reason, metrics, curves, config and log of a run, all as text', () => {
  const evil = '<img src=x onerror=alert(1)>';
  const failed = run('a', { state: 'failed', reason: 'The disk is full.' });
  showRuns(failed);
  model.details = {
    id: 'a',
    status: { state: 'failed', reason: 'The disk is full.' },
    meta: { revision: 1, name: evil, tags: [], note: evil },
    row: failed,
    numbers: { loss: 1.28, learning_rate: 3.1e-5, memory: 1.61e9 },
    chart: chart('Loss', {
      loss: [
        [1, 2, 3],
        [1.8, null, 1.2]
      ],
      eval_loss: [[], []]
    }),
    checkpoints: [75, 90],
    config: { lora_rank: 8, dataset: evil },
    environment: { device: 'CPU' },
    events: [{ type: 'finding', message: 'It rises.', fix: 'End it.' }],
    answers: [{ prompt: evil, step: 3, text: evil }],
    log: [evil]
  };
  show();
  const text = host.textContent!;
  for (const part of [
    'The disk is full.',
    '3.1e-5',
    '1.61 GB',
    'step 90Branch…Chatstep 75Branch…Chat',
    'lora_rank8',
    'It rises. End it.',
    'step 93 of 141'
  ]) {
    expect(text).toContain(part);
  }
  expect(host.querySelector('img')).toBeNull();
  expect(host.querySelector('figure polyline')).not.toBeNull();
  expect(
    host.querySelector('[role=progressbar]')!.getAttribute('aria-valuenow')
  ).toBe('93');
  act(() => button('More…').click());
  expect(openMenu).toHaveBeenCalledOnce();
  act(() => button('Runs').click());
  expect(model.details).toBeNull();
});

it.each(['stopped', 'failed', 'lost'] as const)(
  'resumes a run that is %s by a button, which says that it resumes until the state changes',
  async state => {
    api.allRuns = [run('a', { state })];
    showRuns(...api.allRuns);
    await act(() => model.openDetails('a'));
    show();
    execute.mockImplementation(() => {
      void model.whileResuming('a', 'Resuming…', () => new Promise(() => {}));
    });
    act(() => button('Resume').click());
    show();
    expect(execute.mock.calls).toEqual([['llf:resume']]);
    act(() => button('Resuming…').click());
    expect(execute).toHaveBeenCalledOnce();

    api.allRuns = [run('a', { state: 'starting' })];
    await act(() => model.openDetails('a'));
    show();
    expect(host.textContent).not.toContain('Resum');
  }
);

it('says once why a run failed, with names as code, and offers nothing that needs a model of it', () => {
  const reason = 'The columns q match no format. Set `dataset_columns`.';
  const failed = run('a', { state: 'failed', reason, weights: false });
  showRuns(failed);
  expect(rows()[0].querySelector('code')!.textContent).toBe('dataset_columns');
  const details = {
    id: 'a',
    status: { state: failed.state, reason },
    meta: { revision: 1, name: 'a', tags: [], note: '' },
    row: failed,
    events: [
      { type: 'warning', message: 'The key `x` has no effect.' },
      { type: 'error', message: 'The columns q match no format.' },
      { type: 'error', message: 'The disk is full.' }
    ]
  };
  model.details = details;
  show();
  const messages = (): string[] =>
    Array.from(host.querySelectorAll('.llf-Message'), one => one.textContent!);
  expect(messages()).toEqual([
    'WarningThe key x has no effect.',
    'ErrorThe disk is full.'
  ]);
  expect(host.textContent).toContain('no format. Set dataset_columns.');
  expect(
    Array.from(host.querySelectorAll('code'), one => one.textContent)
  ).toEqual(['dataset_columns', 'x']);
  const offered = (): (string | null)[] =>
    Array.from(
      host.querySelectorAll('.llf-row button'),
      one => one.textContent
    );
  expect(offered()).toEqual(['Runs', 'Open monitor', 'Resume', 'More…']);
  model.details = { ...details, row: { ...failed, weights: true } };
  show();
  expect(offered()).toEqual([
    'Runs',
    'Open monitor',
    'Resume',
    'Evaluate',
    'Export…',
    'More…'
  ]);
});

it('says what a run does after its last step', () => {
  const done = run('a', { step: 141 });
  showRuns(done);
  model.details = {
    id: 'a',
    status: { state: 'running', reason: null },
    meta: { revision: 1, name: 'a', tags: [], note: '' },
    row: done,
    doing: 'All steps are done.'
  };
  show();
  expect(host.textContent).toContain('step 141 of 141All steps are done.');
});

it('shows the reward and its curve in the details', () => {
  const reward = keyMetric('reward', 'Reward', 'number', 0.84);
  const heldOut = keyMetric('eval_x', 'Held-out accuracy', 'share', 0.83);
  const learner = run('a', { counted: [reward] });
  showRuns(learner);
  model.details = {
    id: 'a',
    status: { state: 'running', reason: null },
    meta: { revision: 1, name: 'grpo', tags: [], note: '' },
    row: learner,
    numbers: { loss: 0, reward: 0.84 },
    counted: [reward, heldOut],
    chart: chart('Reward', {
      reward: [
        [1, 2],
        [0.2, 0.84]
      ],
      eval_reward: [[], []]
    })
  };
  show();
  const numbers = host.querySelector('.llf-Details-numbers')!.textContent!;
  expect(numbers).toContain('Reward0.84');
  expect(numbers).toContain('Held-out accuracy83 %');
  expect(host.querySelector('figcaption')!.textContent).toBe(
    'Reward, 0.8400 to 0.2000, 2 steps; solid: training, dashed: evaluation'
  );
  expect(host.querySelector('polyline.is-training')).not.toBeNull();
});

it('offers a branch from each checkpoint', () => {
  const one = run('a');
  showRuns(one);
  model.details = {
    id: 'a',
    status: { state: 'running', reason: null },
    meta: { revision: 1, name: 'x', tags: [], note: '' },
    row: one,
    checkpoints: [50, 100, 150],
    chart: chart('Loss', {
      loss: [[], []],
      eval_loss: [
        [50, 100],
        [1.25, 1.5]
      ]
    })
  };
  show();
  const steps = host.querySelectorAll('.llf-Details-checkpoint');
  expect(Array.from(steps, item => item.textContent)).toEqual([
    'step 150Branch…Chat',
    'step 1001.500Branch…Chat',
    'step 501.250, bestBranch…Chat'
  ]);
  act(() => button('Stop').click());
  expect(execute).toHaveBeenCalledWith('llf:stop');
  const buttons = host.querySelectorAll<HTMLButtonElement>(
    '[aria-label^=Branch]'
  );
  act(() => buttons[2].click());
  expect(execute).toHaveBeenCalledWith('llf:branch', { step: 50 });
});

it('lists the evaluations and exports of a run, and offers what is in its folder as a download', async () => {
  api.allRuns = [run('a', { state: 'finished' })];
  const made = '2026-11-27T12:00:00+00:00';
  const evil = '<img src=x>';
  api.extraDetails = {
    evaluations: [
      {
        made,
        target: 'adapter of step 4',
        data: evil,
        examples: 1,
        metrics: [
          ['F1', '50.0 %'],
          ['Loss', '1.250']
        ].map(([label, text]) => ({ label, text })),
        judged: [
          {
            judge: evil,
            base: 'demo@base',
            text: '62.0 % (51.0 % to 72.0 %)',
            verdict: 'better'
          }
        ],
        problem: ''
      },
      {
        made: '',
        target: '',
        data: '',
        examples: 0,
        metrics: [],
        problem: 'evaluation.json is missing.'
      }
    ],
    exports: [
      {
        format: 'gguf',
        made,
        step: 4,
        passed: true,
        bytes: 2e6,
        folder: 'exports/gguf',
        there: true,
        key: '0123456789abcdef'
      },
      {
        format: 'merged',
        made: 'earlier',
        step: null,
        passed: false,
        bytes: 1e6,
        folder: '~/models/x',
        there: false,
        key: ''
      }
    ]
  };
  await model.openDetails('a');
  show();
  const section = (name: string): string[] =>
    Array.from(
      host.querySelectorAll(`section[aria-label="${name}"] li`),
      item => item.textContent!.replace(/, Nov 2\d, 2026, \d\d:00/, '')
    );
  const [evaluation, damaged] = section('Evaluations');
  expect(host.textContent).not.toMatch(/\d\s[AP]M/);
  expect(evaluation).toContain(`adapter of step 4 on ${evil}1 example`);
  expect(evaluation).toContain('F1 50.0 %, Loss 1.250');
  expect(evaluation).toContain(
    `Win rate against demo@base by ${evil}: 62.0 % (51.0 % to 72.0 %), better`
  );
  expect(damaged).toBe('evaluation.json is missing.');
  const [gguf, merged] = section('Exports');
  expect(gguf).toContain('gguf of step 4, 2.00 MB, all checks passed');
  expect(merged).toBe(
    'merged, 1.00 MB, checks failed~/models/x (moved or deleted), earlier'
  );
  const links = Array.from(host.querySelectorAll('a[download]'));
  expect(links.map(link => link.getAttribute('href'))).toEqual([
    '/llf/api/runs/a/exports/0123456789abcdef.zip'
  ]);
  button('Evaluate').click();
  button('Export…').click();
  expect(execute.mock.calls.map(([command]) => command)).toEqual([
    'llf:evaluate-model',
    'llf:export'
  ]);
});
