import { nullTranslator } from '@jupyterlab/translation';
import * as React from 'react';
import { act } from 'react';
import { createRoot, type Root } from 'react-dom/client';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';

import { RunsModel } from '../model';
import { Runs } from '../panel';
import { FakeApi, run } from './runs';

const trans = nullTranslator.load('llf');
let host: HTMLElement;
let root: Root;
let model: RunsModel;
const toClipboard = vi.fn();

beforeEach(() => {
  host = document.body.appendChild(document.createElement('div'));
  root = createRoot(host);
  model = new RunsModel({
    api: new FakeApi(),
    pageVersion: '0.1.0',
    isVisible: () => false
  });
  model.health = 'ready';
  model.version = new FakeApi().answer;
});

afterEach(() => {
  act(() => root.unmount());
  host.remove();
  model.dispose();
  toClipboard.mockReset();
});

function show(): void {
  act(() =>
    root.render(<Runs model={model} trans={trans} toClipboard={toClipboard} />)
  );
}

function list(...runs: ReturnType<typeof run>[]): void {
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

function press(key: string): void {
  act(() => {
    document.activeElement!.dispatchEvent(
      new KeyboardEvent('keydown', { key, bubbles: true })
    );
  });
}

it('lists name, state, steps and age', () => {
  vi.spyOn(Date, 'now').mockReturnValue(1_420_000);
  list(run('a', { name: 'smollm2-sft-lora' }));
  vi.restoreAllMocks();
  expect(rows()[0].textContent).toBe('smollm2-sft-lora7 minrunning 93/141');
  expect(rows()[0].classList).toContain('is-running');
});

it('copies the line that shows a run', () => {
  list(run('a'), run('b'));
  act(() => rows()[1].click());
  expect(rows().map(row => row.getAttribute('aria-expanded'))).toEqual([
    'false',
    'true'
  ]);
  act(() => button('Copy code').click());
  expect(toClipboard).toHaveBeenCalledWith('llf.Monitor("b")');
  expect(host.querySelector('[role=status]')!.textContent).toContain('Copied');
});

it('says why a run failed', () => {
  list(run('a', { state: 'failed', reason: 'The disk is full.' }));
  act(() => rows()[0].click());
  expect(host.textContent).toContain('The disk is full.');
});

it('is one tab stop, moved by arrows, Home and End', () => {
  list(run('a'), run('b'), run('c'));
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

it('keeps a name as text', () => {
  list(run('a', { name: '<img src=x onerror=alert(1)>' }));
  expect(host.querySelector('img')).toBeNull();
  expect(rows()[0].textContent).toContain('<img src=x onerror=alert(1)>');
});

it('says how to start where there are no runs, and which folder is read', () => {
  list();
  expect(host.textContent).toContain('No runs yet');
  expect(host.textContent).toContain('~/.llf/runs');
  act(() => button('Copy code').click());
  expect(toClipboard).toHaveBeenCalledWith(
    'import llf_widgets as llf\nllf.Studio()'
  );
});

it('gives the commands where the server has no LLF', () => {
  model.health = 'missing';
  model.version = null;
  show();
  expect(host.querySelector('[role=alert]')!.textContent).toContain(
    'llf/api/version gave 404'
  );
  act(() => button('Copy the commands').click());
  expect(toClipboard).toHaveBeenCalledWith(
    'pip install llf\njupyter server extension list'
  );
});

it('asks again when told to', () => {
  model.health = 'missing';
  const refresh = vi.spyOn(model, 'refresh').mockResolvedValue();
  show();
  act(() => button('Try again').click());
  expect(refresh).toHaveBeenCalledOnce();
});

it('warns above the list that versions differ, or that the list is old', () => {
  model.version = { ...new FakeApi().answer, llf: '0.0.9' };
  model.health = 'unreachable';
  list(run('a'));
  const warnings = Array.from(host.querySelectorAll('.llf-Message.is-warn'));
  expect(warnings.map(item => item.textContent)).toEqual([
    expect.stringContaining('The page has LLF 0.1.0, the server 0.0.9.'),
    expect.stringContaining('does not answer')
  ]);
  expect(rows()).toHaveLength(1);
});
