import { act } from 'react';
import { expect, it, vi } from 'vitest';

import {
  host,
  model,
  execute,
  show,
  showRuns,
  rows,
  button
} from './drawn_panel';
import { keyMetric, run } from './runs';

it('lists name, state, steps and age', () => {
  vi.spyOn(Date, 'now').mockReturnValue(1_420_000);
  showRuns(run('a', { name: 'smollm2-sft-lora' }));
  vi.restoreAllMocks();
  expect(rows()[0].textContent).toBe(
    'smollm2-sft-loraloss1.280running 93/1417 min'
  );
  expect(rows()[0].querySelector('polyline')).not.toBeNull();
  expect(rows()[0].classList).toContain('is-running');
});

it('shows the remaining time and the tags', () => {
  showRuns(run('a', { remaining: 213, tags: ['best', 'faq'] }));
  expect(rows()[0].textContent).toContain('running 93/141, 3:33 left');
  expect(rows()[0].textContent).toContain('best, faq');
});

it('says where a run runs', () => {
  showRuns(run('a', { place: 'box, 2 processes (DDP)', tags: ['best'] }));
  expect(rows()[0].textContent).toContain('box, 2 processes (DDP), best');
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

const accuracy = keyMetric(
  'rewards/accuracies',
  'Training accuracy',
  'share',
  0.832
);

/** The names below the numbers of the rows. */
function metricNames(): string[] {
  return Array.from(
    host.querySelectorAll('.llf-RunsPanel-metric'),
    one => one.textContent!
  );
}

it('shows the first key metric, or the loss if there is none', () => {
  showRuns(run('a', { counted: [accuracy] }), run('b'));
  const shown = rows().map(row =>
    row.querySelector<HTMLElement>('.llf-RunsPanel-loss')!
  );
  expect(shown.map(one => one.textContent)).toEqual(['83 %', '1.280']);
  expect(shown.map(one => one.title)).toEqual([
    'Training accuracy',
    'Training loss'
  ]);
  expect(metricNames()).toEqual(['accuracy', 'loss']);
});

it('shows the losses if the list is sorted by loss', () => {
  void model.setFilter({ sort: 'loss' });
  showRuns(run('a', { counted: [accuracy] }));
  expect(rows()[0].querySelector('.llf-RunsPanel-loss')!.textContent).toBe(
    '1.280'
  );
});

it('says in the list that a run resumes', () => {
  vi.spyOn(model, 'isResuming').mockImplementation(({ id }) => id === 'b');
  const stopped = { state: 'stopped', step: 3, total: 9 } as const;
  showRuns(run('a', stopped), run('b', stopped));
  const texts = rows().map(
    row => row.querySelector('.llf-RunsPanel-info')!.textContent
  );
  expect(texts).toEqual(['stopped 3/9', 'Resuming…']);
});

it('shows in the list why a run failed', () => {
  const reason = '\u001b[31mOut of memory\u001b[0m on the GPU.';
  showRuns(run('a', { state: 'failed', step: 12, reason }));
  const info = rows()[0].querySelector<HTMLElement>('.llf-RunsPanel-info')!;
  expect(info.textContent).toBe('failed 12/141: Out of memory on the GPU.');
  expect(info.title).toBe('Out of memory on the GPU.');
});

it('shows a name as text', () => {
  showRuns(run('a', { name: '<img src=x onerror=alert(1)>' }));
  expect(host.querySelector('img')).toBeNull();
  expect(rows()[0].textContent).toContain('<img src=x onerror=alert(1)>');
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
  expect(metricNames()).toEqual(['ROUGE-L']);
  expect(shown[1]).toBeNull(); // neither its loss nor another metric stands in the place of ROUGE-L

  model.sortMetrics = [];
  show();
  expect(list.value).toBe('metric:eval_rougeL');
  expect(list.selectedOptions[0].textContent).toBe('By rougeL');
});

it('marks a finished run whose curves speak against its result, and says why', () => {
  const finding = 'The loss ended at 3.30, 3.4 times the first one (0.97).';
  showRuns(run('a', { state: 'finished', step: 24, total: 24, finding }));
  const row = document.querySelector('.llf-RunsPanel-row')!;
  expect(row.classList.contains('has-finding')).toBe(true);
  expect(row.textContent).toContain(`finished 24/24: ${finding}`);
});

it('offers the runs of other hosts once one was opened from here', () => {
  showRuns(run('a'));
  expect(host.querySelector('[aria-label=Machine]')).toBeNull();
  model.hosts = [{ host: 'box', runs: 3 }];
  show();
  const select = host.querySelector<HTMLSelectElement>('[aria-label=Machine]')!;
  expect(Array.from(select.options).map(one => one.text)).toEqual([
    'This machine',
    'box: 3 runs'
  ]);
  const setHost = vi.spyOn(model, 'setHost').mockResolvedValue();
  act(() => {
    select.value = 'box';
    select.dispatchEvent(new Event('change', { bubbles: true }));
  });
  expect(setHost).toHaveBeenCalledWith('box');
});
