import { nullTranslator } from '@jupyterlab/translation';
import * as React from 'react';
import { act } from 'react';
import { createRoot, type Root } from 'react-dom/client';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';

import { RunsModel } from '../model';
import { RunsView } from '../panel';
import { chart, keyMetric, FakeApi, run } from './runs';

const trans = nullTranslator.load('llf');
let host: HTMLElement;
let root: Root;
let model: RunsModel;
const copyToClipboard = vi.fn();
const execute = vi.fn();
const openMenu = vi.fn();
let api: FakeApi;

beforeEach(() => {
  host = document.body.appendChild(document.createElement('div'));
  root = createRoot(host);
  api = new FakeApi();
  model = new RunsModel({
    api,
    pageVersion: '0.1.0',
    isVisible: () => false
  });
  model.serverStatus = 'ready';
  model.version = new FakeApi().versionInfo;
});

afterEach(() => {
  act(() => root.unmount());
  host.remove();
  model.dispose();
  for (const door of [copyToClipboard, execute, openMenu]) {
    door.mockReset();
  }
});

function show(): void {
  act(() =>
    root.render(
      <RunsView
        model={model}
        trans={trans}
        copyToClipboard={copyToClipboard}
        execute={execute}
        openMenu={openMenu}
        bin={{ restore, deletePermanently }}
      />
    )
  );
}

function showRuns(...runs: ReturnType<typeof run>[]): void {
  model.runs = runs;
  model.total = runs.length;
  show();
}

function rows(): HTMLButtonElement[] {
  return Array.from(host.querySelectorAll('button[data-run]'));
}

function button(text: string): HTMLButtonElement {
  const found = Array.from(host.querySelectorAll('button')).find(
    item => item.textContent === text
  );
  expect(found, `a button "${text}"`).toBeDefined();
  return found!;
}

function press(key: string, keys: KeyboardEventInit = {}): void {
  act(() => {
    document.activeElement!.dispatchEvent(
      new KeyboardEvent('keydown', { key, bubbles: true, ...keys })
    );
  });
}

it('lists name, state, steps and age', () => {
  vi.spyOn(Date, 'now').mockReturnValue(1_420_000);
  showRuns(run('a', { name: 'smollm2-sft-lora' }));
  vi.restoreAllMocks();
  expect(rows()[0].textContent).toBe(
    'smollm2-sft-lora1.280running 93/1417 min'
  );
  expect(rows()[0].querySelector('polyline')).not.toBeNull();
  expect(rows()[0].classList).toContain('is-running');
});

it('shows the remaining time and the tags', () => {
  showRuns(run('a', { remaining: 213, tags: ['best', 'faq'] }));
  expect(rows()[0].textContent).toContain('running 93/141, 3:33 left');
  expect(rows()[0].textContent).toContain('best, faq');
});

it('opens a run by a click, selects several with Ctrl, Cmd or Space', async () => {
  api.allRuns = [run('a'), run('b'), run('c')];
  showRuns(...api.allRuns);
  act(() => {
    rows()[0].dispatchEvent(
      new MouseEvent('click', { bubbles: true, ctrlKey: true })
    );
  });
  show();
  act(() => rows()[1].focus());
  press(' ');
  show();
  expect(rows().map(row => row.getAttribute('aria-pressed'))).toEqual([
    'true',
    'true',
    'false'
  ]);
  expect(host.textContent).toContain('2 selected');
  act(() => button('Compare').click());
  expect(execute).toHaveBeenCalledWith('llf:compare');
  act(() => button('Clear selection').click());
  show();
  expect(host.textContent).not.toContain('selected');
  await act(async () => {
    rows()[2].click();
    await Promise.resolve();
  });
  expect(model.details?.id).toBe('c');
});

it('selects a range with Shift and a click or an arrow key', () => {
  showRuns(run('a'), run('b'), run('c'), run('d'), run('e'));
  const click = (row: number, keys: MouseEventInit): void => {
    act(() => {
      rows()[row].dispatchEvent(
        new MouseEvent('click', { bubbles: true, ...keys })
      );
    });
    show();
  };
  const chosen = (): string[] => model.selectedRuns.map(item => item.id);
  click(1, { ctrlKey: true });
  click(3, { shiftKey: true });
  expect(chosen()).toEqual(['b', 'c', 'd']);
  click(0, { shiftKey: true }); // from the same row, the other way
  expect(chosen()).toEqual(['a', 'b']);
  expect(model.details).toBeNull();

  act(() => rows()[3].focus());
  press('ArrowDown');
  press('ArrowUp', { shiftKey: true });
  press('ArrowUp', { shiftKey: true });
  expect(chosen()).toEqual(['c', 'd', 'e']);
  press('ArrowDown', { shiftKey: true });
  expect(chosen()).toEqual(['d', 'e']);
  expect(document.activeElement).toBe(rows()[3]);
});

it('says how to find runs that are not in the list', () => {
  model.runs = Array.from({ length: 200 }, (_, place) => run(`r${place}`));
  model.total = 301;
  vi.spyOn(model, 'hasMore', 'get').mockReturnValue(false);
  show();
  expect(host.textContent).toContain(
    '200 of 301 runsUse search or filters to see the others.'
  );
  showRuns(run('a'));
  expect(host.textContent).toContain('1 runLLF 0.1.0');
});

it('selects the run under the context menu unless it is already selected', () => {
  showRuns(run('a'), run('b'), run('c'));
  const menu = (row: number): void =>
    act(() => {
      rows()[row].dispatchEvent(
        new MouseEvent('contextmenu', { bubbles: true })
      );
    });
  menu(1);
  expect(model.selectedRuns.map(item => item.id)).toEqual(['b']);
  model.toggle('a');
  show();
  menu(0);
  expect(model.selectedRuns.map(item => item.id)).toEqual(['a', 'b']);
});

it('groups the list by data', () => {
  void model.setFilter({ group: 'dataset' });
  showRuns(run('a'), run('b', { dataset: 'wiki' }), run('c'));
  const heads = Array.from(host.querySelectorAll('h4'));
  expect(heads.map(head => head.textContent)).toEqual([
    'faq.jsonl 2 runs',
    'wiki 1 run'
  ]);
});

it('filters by state, and starts a new run', () => {
  showRuns(run('a'));
  const setFilter = vi.spyOn(model, 'setFilter').mockResolvedValue();
  const state = host.querySelector<HTMLSelectElement>('[aria-label=State]')!;
  act(() => {
    state.value = 'failed';
    state.dispatchEvent(new Event('change', { bubbles: true }));
  });
  expect(setFilter).toHaveBeenCalledWith({ state: 'failed' });
  act(() => button('New run').click());
  expect(execute).toHaveBeenCalledWith('llf:new-run');
});

it('says that no run matches, and offers to show all', () => {
  void model.setFilter({ query: 'mistral' });
  showRuns();
  expect(host.textContent).toContain('No runs match');
  const setFilter = vi.spyOn(model, 'setFilter').mockResolvedValue();
  act(() => button('Show all runs').click());
  expect(setFilter).toHaveBeenCalledWith(
    expect.objectContaining({ query: '', state: '' })
  );
});

it('says that the server still reads runs, and not that none matches', () => {
  void model.setFilter({ query: 'mistral' });
  model.indexProgress = { done: 1234, of: 10_000 };
  showRuns();
  expect(host.textContent).toContain(
    'Reading runs: 1,234 of 10,000. More may match.'
  );
  expect(host.textContent).not.toContain('No runs match');
});

it('lists adapters', () => {
  model.adapters = [
    {
      run: 'a',
      name: 'faq-v3',
      base: 'org/smollm2',
      method: 'lora',
      rank: 8,
      bytes: 9_800_000,
      ended: null
    }
  ];
  model.adaptersTotal = 7;
  showRuns(run('a'));
  const adapters = host.querySelector('[aria-label=Adapters]')!;
  expect(adapters.textContent).toBe(
    'Adapters and models 7faq-v39.80 MBsmollm2, lora rank 8Chat'
  );
  const chat = adapters.querySelector('[aria-label="Chat with faq-v3"]')!;
  act(() => (chat as HTMLElement).click());
  expect(execute).toHaveBeenCalledWith('llf:chat-result', { run: 'a' });
  expect(model.details).toBeNull(); // the row itself opens the run
});

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
  expect(offered()).toEqual(['Runs', 'Open monitor', 'More…']);
  model.details = { ...details, row: { ...failed, weights: true } };
  show();
  expect(offered()).toEqual([
    'Runs',
    'Open monitor',
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

const accuracy = keyMetric('rewards/accuracies', 'Accuracy', 'share', 0.832);

it('shows the first key metric, or the loss if there is none', () => {
  showRuns(run('a', { counted: [accuracy] }), run('b'));
  const shown = rows().map(row =>
    row.querySelector<HTMLElement>('.llf-RunsPanel-loss')!
  );
  expect(shown.map(one => one.textContent)).toEqual(['83 %', '1.280']);
  expect(shown.map(one => one.title)).toEqual(['Accuracy', 'Training loss']);
});

it('shows the losses if the list is sorted by loss', () => {
  void model.setFilter({ sort: 'loss' });
  showRuns(run('a', { counted: [accuracy] }));
  expect(rows()[0].querySelector('.llf-RunsPanel-loss')!.textContent).toBe(
    '1.280'
  );
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

const restore = vi.fn();
const deletePermanently = vi.fn();

it('lists the bin, restores runs and deletes them permanently', async () => {
  vi.spyOn(Date, 'now').mockReturnValue(7_700_000);
  api.deletedRuns = [
    {
      ...run('a', { name: 'faq-v1', state: 'finished' }),
      deleted: 500,
      bytes: 2e6
    },
    {
      ...run('b', { name: 'faq-v2', state: 'failed' }),
      deleted: 100,
      bytes: 1e6
    }
  ];
  model.binTotal = 2;
  showRuns(run('c'));
  await act(async () => button('Bin: 2 runs').click());
  show();
  vi.restoreAllMocks();
  const bin = host.querySelector('article')!;
  const differs = bin.querySelectorAll('.llf-RunsPanel-distinct');
  expect(Array.from(differs, part => part.textContent)).toEqual(['v1', 'v2']);
  expect(bin.textContent).toContain('2 runs, 3.00 MB on the disk.');
  expect(bin.textContent).toContain('faq-v1finished, deleted 2 h ago, 2.00 MB');
  expect(rows()).toHaveLength(0);
  expect(document.activeElement).toBe(button('Runs'));
  act(() => button('Restore').click());
  expect(restore).toHaveBeenCalledWith([model.bin!.runs[0]]);
  act(() => button('Delete all permanently…').click());
  expect(deletePermanently).toHaveBeenCalledWith(model.bin!.runs);
  press('Escape');
  show();
  expect(rows()).toHaveLength(1);
});

it('shows the link to the bin if there are no runs', () => {
  model.binTotal = 1;
  showRuns();
  expect(button('Bin: 1 run')).toBeTruthy();
});

it('deletes the selected runs or the focused row by the Delete key', () => {
  showRuns(run('a'), run('b'), run('c'));
  act(() => rows()[1].focus());
  press('Delete');
  expect(execute).toHaveBeenCalledWith('llf:delete');
  expect(model.selectedRuns.map(one => one.id)).toEqual(['b']);
  model.toggle('c');
  show();
  act(() => rows()[0].focus());
  press('Delete');
  expect(model.selectedRuns.map(one => one.id)).toEqual(['b', 'c']);
  press('Escape');
  expect(model.selectedRuns).toEqual([]);
});

it('deletes nothing if the key is held down or pressed outside the list', async () => {
  model.adapters = [
    {
      run: 'a',
      name: 'faq-v3',
      base: 'org/smollm2',
      method: 'lora',
      rank: 8,
      bytes: 1,
      ended: null
    }
  ];
  model.binTotal = 1;
  showRuns(run('a'), run('b'));
  model.select('b');
  act(() => rows()[0].focus());
  act(() => {
    rows()[0].dispatchEvent(
      new KeyboardEvent('keydown', {
        key: 'Delete',
        bubbles: true,
        repeat: true
      })
    );
  });
  act(() => host.querySelector<HTMLElement>('.is-adapter')!.focus());
  press('Delete');
  await act(async () => button('Bin: 1 run').click());
  show();
  press('Delete');
  expect(execute).not.toHaveBeenCalled();
});

it('clears the search by Escape, and deletes no run by a key pressed in it', () => {
  void model.setFilter({ query: 'lora' });
  showRuns(run('a'));
  model.select('a');
  const search = host.querySelector('input')!;
  act(() => search.focus());
  press('Delete');
  expect(execute).not.toHaveBeenCalled();
  press('Escape');
  expect(search.value).toBe('');
  expect(model.isSelected('a')).toBe(true);
});

it('focuses the next row if the focused one is removed', () => {
  showRuns(run('a'), run('b'), run('c'));
  act(() => rows()[1].focus());
  showRuns(run('a'), run('c'));
  expect(document.activeElement).toBe(rows()[1]);
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

it('shows in the list why a run failed', () => {
  const reason = '\u001b[31mOut of memory\u001b[0m on the GPU.';
  showRuns(run('a', { state: 'failed', step: 12, reason }));
  const info = rows()[0].querySelector<HTMLElement>('.llf-RunsPanel-info')!;
  expect(info.textContent).toBe('failed 12/141: Out of memory on the GPU.');
  expect(info.title).toBe('Out of memory on the GPU.');
});

it('is one tab stop, moved by arrows, Home and End', () => {
  showRuns(run('a'), run('b'), run('c'));
  const stops = () => rows().map(row => row.tabIndex);
  expect(stops()).toEqual([0, -1, -1]);
  act(() => rows()[0].focus());
  press('ArrowDown');
  expect(document.activeElement).toBe(rows()[1]);
  expect(stops()).toEqual([-1, 0, -1]);
  press('End');
  press('ArrowDown');
  expect(document.activeElement).toBe(rows()[2]);
  press('Home');
  expect(document.activeElement).toBe(rows()[0]);
});

it('shows a name as text', () => {
  showRuns(run('a', { name: '<img src=x onerror=alert(1)>' }));
  expect(host.querySelector('img')).toBeNull();
  expect(rows()[0].textContent).toContain('<img src=x onerror=alert(1)>');
});

it('says how to start a run if there are none, and which folder the server reads', () => {
  showRuns();
  expect(host.textContent).toContain('No runs yet');
  expect(host.textContent).toContain('~/.llf/runs');
  act(() => button('Copy code').click());
  expect(copyToClipboard).toHaveBeenCalledWith(
    'import llf_widgets as llf\nllf.Studio()'
  );
});

it('shows the install commands if the server has no LLF', () => {
  model.serverStatus = 'missing';
  model.version = null;
  show();
  expect(host.querySelector('[role=alert]')!.textContent).toContain(
    'llf/api/version returned 404'
  );
  act(() => button('Copy commands').click());
  expect(copyToClipboard).toHaveBeenCalledWith(
    'pip install llf\njupyter server extension list'
  );
});

it('polls again by a button', () => {
  model.serverStatus = 'missing';
  const refresh = vi.spyOn(model, 'refresh').mockResolvedValue();
  show();
  act(() => button('Try again').click());
  expect(refresh).toHaveBeenCalledOnce();
});

it('warns above the list that versions differ and that the list may be out of date', () => {
  model.version = { ...new FakeApi().versionInfo, llf: '0.0.9' };
  model.serverStatus = 'unreachable';
  model.serverError = 'The Jupyter server does not answer.';
  showRuns(run('a'));
  const warnings = Array.from(host.querySelectorAll('.llf-Message.is-warn'));
  expect(warnings.map(item => item.textContent)).toEqual([
    expect.stringContaining('This page has LLF 0.1.0, the server 0.0.9.'),
    expect.stringContaining('does not answer')
  ]);
  expect(rows()).toHaveLength(1);
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

it('offers the metrics of evaluations as orders, and shows in each row the one that sorts', () => {
  model.sortMetrics = [
    { name: 'eval_loss', label: 'Loss', form: 'number', better: 'lower' },
    { name: 'eval_rougeL', label: 'ROUGE-L', form: 'share', better: 'higher' }
  ];
  showRuns(
    run('a', { evaluated: { eval_rougeL: 0.25 } }),
    run('b', { counted: [keyMetric('kl', 'KL divergence', 'number', 3)] })
  );
  const list = host.querySelector<HTMLSelectElement>(
    'select[aria-label="Sort by"]'
  )!;
  const words = (): string[] =>
    Array.from(list.options).map(option => option.textContent!);
  expect(words()).toEqual([
    'Newest',
    'Oldest',
    'Lowest loss',
    'Lowest eval Loss',
    'Highest eval ROUGE-L',
    'Name',
    'State'
  ]);
  act(() => void model.setFilter({ sort: 'metric:eval_rougeL' }));
  show();
  expect(list.value).toBe('metric:eval_rougeL');
  const shown = rows().map(row => row.querySelector('.llf-RunsPanel-loss'));
  expect(shown[0]!.textContent).toBe('25 %');
  expect(shown[0]!.getAttribute('title')).toBe('ROUGE-L');
  expect(shown[1]).toBeNull(); // neither its loss nor another metric stands in the place of ROUGE-L

  model.sortMetrics = [];
  show();
  expect(list.value).toBe('metric:eval_rougeL');
  expect(list.selectedOptions[0].textContent).toBe('By rougeL');
});
