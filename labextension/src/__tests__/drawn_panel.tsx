// The panel, drawn without a server, and what a test does in it.

import { nullTranslator } from '@jupyterlab/translation';
import * as React from 'react';
import { act } from 'react';
import { createRoot, type Root } from 'react-dom/client';
import { afterEach, beforeEach, expect, vi } from 'vitest';

import type { IRun } from '../api';
import { RunsModel } from '../model';
import { RunsView } from '../panel';
import { FakeApi } from './runs';

const trans = nullTranslator.load('llf');
export let host: HTMLElement;
let root: Root;
export let model: RunsModel;
export let api: FakeApi;
export const copyToClipboard = vi.fn();
export const execute = vi.fn();
export const openMenu = vi.fn();
export const restore = vi.fn();
export const deletePermanently = vi.fn();

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
  for (const mock of [
    copyToClipboard,
    execute,
    openMenu,
    restore,
    deletePermanently
  ]) {
    mock.mockReset();
  }
});

/** Draws the model as it is now. */
export function show(): void {
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

/** Draws a list of runs. */
export function showRuns(...runs: IRun[]): void {
  model.runs = runs;
  model.total = runs.length;
  show();
}

/** Returns the rows of the list. */
export function rows(): HTMLButtonElement[] {
  return Array.from(host.querySelectorAll('button[data-run]'));
}

/** Returns the button with a text. */
export function button(text: string): HTMLButtonElement {
  const found = Array.from(host.querySelectorAll('button')).find(
    item => item.textContent === text
  );
  expect(found, `a button "${text}"`).toBeDefined();
  return found!;
}

/** Presses a key in the focused element. */
export function press(key: string, keys: KeyboardEventInit = {}): void {
  act(() => {
    document.activeElement!.dispatchEvent(
      new KeyboardEvent('keydown', { key, bubbles: true, ...keys })
    );
  });
}
