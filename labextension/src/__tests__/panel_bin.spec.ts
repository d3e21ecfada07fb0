import { act } from 'react';
import { expect, it, vi } from 'vitest';

import {
  host,
  model,
  api,
  restore,
  deletePermanently,
  show,
  showRuns,
  rows,
  button,
  press
} from './drawn_panel';
import { run } from './runs';

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
