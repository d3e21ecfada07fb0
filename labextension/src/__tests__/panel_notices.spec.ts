import { act } from 'react';
import { expect, it, vi } from 'vitest';

import {
  host,
  model,
  copyToClipboard,
  show,
  showRuns,
  rows,
  button
} from './drawn_panel';
import { FakeApi, run } from './runs';

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
    'pip install LLF_FOLDER\njupyter server extension list'
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
