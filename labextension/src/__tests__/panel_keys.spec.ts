import { act } from 'react';
import { expect, it } from 'vitest';

import {
  host,
  model,
  api,
  execute,
  show,
  showRuns,
  rows,
  button,
  press
} from './drawn_panel';
import { run } from './runs';

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

it('renames the focused row by F2, and restores the last deletion by Ctrl or Cmd and Z', () => {
  showRuns(run('a'), run('b'));
  act(() => rows()[1].focus());
  press('F2');
  expect(execute.mock.calls).toEqual([['llf:rename']]);
  expect(model.selectedRuns.map(one => one.id)).toEqual(['b']);
  execute.mockReset();
  press('z');
  press('z', { ctrlKey: true, shiftKey: true });
  expect(execute).not.toHaveBeenCalled();
  press('z', { ctrlKey: true });
  press('z', { metaKey: true });
  expect(execute.mock.calls).toEqual([
    ['llf:undo-delete'],
    ['llf:undo-delete']
  ]);
  execute.mockReset();
  act(() => host.querySelector('input')!.focus()); // undoes what was typed
  press('z', { ctrlKey: true });
  press('F2');
  expect(execute).not.toHaveBeenCalled();
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
