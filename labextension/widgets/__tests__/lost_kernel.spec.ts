import { expect, it, vi } from 'vitest';

import compare from '../compare/view.js';
import examples from '../examples/view.js';
import inspect from '../inspect/view.js';

vi.stubGlobal(
  'ResizeObserver', // which jsdom lacks
  class {
    observe(): void {}
    disconnect(): void {}
  }
);

const VIEWS = {
  compare: {
    view: compare,
    state: {
      choices: [0, 10],
      curves: [{ title: 'loss', help: '', log: true, lines: [['loss', 'a']] }],
      curve: 'loss',
      view: {},
      figure: {},
      x_axis: 'step',
      smoothing: null,
      log_scale: false,
      show_raw: false,
      error: ''
    },
    says: 'Run the cell again to change the comparison.'
  },
  examples: {
    view: examples,
    state: { _page: {}, _note: '', _code: [] },
    says: 'Run the cell again to see more examples.'
  },
  inspect: {
    view: inspect,
    state: {
      _state: 'ready',
      _note: '',
      _readings: {},
      _overview: {},
      _lengths: {},
      _page: {},
      _examples: [],
      _rows: {},
      _code: []
    },
    says: 'Run the cell again to see more of the data.'
  }
};

it.each(Object.entries(VIEWS))(
  'the view %s says that its kernel is gone and disables what asks it',
  async (_, { view, state, says }) => {
    const values: Record<string, unknown> = { ...state, _comm_id: 'id' };
    const widget = { comm_live: true };
    const listeners = new Map<string, () => void>();
    const model = {
      get: (name: string) => values[name],
      set: () => undefined,
      save_changes: () => undefined,
      send: () => undefined,
      on: (event: string, act: () => void) => listeners.set(event, act),
      off: (event: string) => listeners.delete(event),
      widget_manager: { get_model: async () => widget }
    };
    const el = document.createElement('div');
    const close = view.render({ model, el });
    const enabled = () =>
      [...el.querySelectorAll('button, select, input')].filter(
        node =>
          !node.matches(
            ':disabled, [readonly], [aria-disabled="true"], [hidden]'
          )
      );
    await Promise.resolve();
    expect(enabled()).not.toEqual([]);
    expect(el.textContent).not.toContain(says);
    listeners.get('comm_live_update')!();
    expect(enabled()).toEqual([]);
    expect(el.textContent).toContain(says);
    close();
  }
);
