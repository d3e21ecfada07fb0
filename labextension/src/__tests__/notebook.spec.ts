import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { INotebookTracker } from '@jupyterlab/notebook';
import { expect, it, vi } from 'vitest';

import { showMonitor } from '../notebook';
import { VIEW_MIME_TYPE } from '../view_data';

/** A cell as JupyterLab has it, with the HTML that it shows. */
function cell(
  more: {
    source?: string;
    html?: string;
    data?: object;
    executionState?: string;
  } = {}
) {
  const node = document.createElement('div');
  node.innerHTML = more.html ?? '';
  const outputs = more.data
    ? [{ data: { [VIEW_MIME_TYPE]: more.data } }]
    : [{ name: 'stdout' }];
  return {
    node,
    model: {
      executionState: more.executionState ?? 'idle',
      sharedModel: { getSource: () => more.source ?? '' },
      outputs: { toJSON: () => outputs }
    }
  };
}

const saved = { view: 'monitor', run: 'a', home: 'ab' };
const code = 'run = llf.attach("a").resume()\nllf.Monitor(run)';

it.each([
  ['one that is saved and not drawn', cell({ data: saved }), true],
  ['one in a form', cell({ html: '<div data-llf-run="a">x</div>' }), true],
  [
    'one that a cell is about to draw',
    cell({ source: code, executionState: 'running' }),
    true
  ],
  ['code that is not run', cell({ source: code }), false],
  [
    'the monitor of another run',
    cell({ data: { ...saved, run: 'ab' } }),
    false
  ],
  ['a text', { node: document.createElement('p'), model: text() }, false]
])('finds of %s: %#', async (_, there, found) => {
  const content = {
    widgets: [cell(), there],
    activeCellIndex: 0,
    deselectAll: vi.fn(),
    scrollToItem: vi.fn().mockResolvedValue(undefined)
  };
  const scrolled = vi.fn();
  const monitor = there.node.querySelector('[data-llf-run]');
  monitor?.addEventListener('scrolled', scrolled);
  Element.prototype.scrollIntoView = function () {
    this.dispatchEvent(new Event('scrolled'));
  };
  const activateById = vi.fn();
  const app = { shell: { activateById } } as unknown as JupyterFrontEnd;
  const tracker = { currentWidget: { id: 'nb', content } };
  expect(
    await showMonitor(app, tracker as unknown as INotebookTracker, 'a')
  ).toBe(found);
  expect(content.scrollToItem.mock.calls).toEqual(found ? [[1, 'start']] : []);
  expect(content.activeCellIndex).toBe(found ? 1 : 0);
  expect(activateById.mock.calls).toEqual(found ? [['nb']] : []);
  expect(scrolled).toHaveBeenCalledTimes(monitor ? 1 : 0);
});

/** The model of a cell with text, which has no outputs. */
function text() {
  return { sharedModel: { getSource: () => code } };
}

it('finds nothing without a notebook', async () => {
  expect(await showMonitor({} as JupyterFrontEnd, null, 'a')).toBe(false);
});
