import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { runFeed } from '../monitor/feed.js';

/** A kernel's widget as anywidget passes it: what is behind it says whether the kernel is still there. */
function widget(commLive: boolean) {
  const listeners = new Map<string, Set<(...values: unknown[]) => void>>();
  const state: Record<string, unknown> = {
    _comm_id: 'id',
    uses_server: false,
    kernel_heartbeat: 100,
    head: { live: true, now: 100 }
  };
  return {
    get: (name: string) => state[name],
    set: (name: string, value: unknown) => {
      state[name] = value;
    },
    save_changes: () => undefined,
    send: () => undefined,
    on: (event: string, act: () => void) => {
      listeners.set(event, (listeners.get(event) ?? new Set()).add(act));
    },
    off: (event: string, act: () => void) => {
      listeners.get(event)?.delete(act);
    },
    widget_manager: { get_model: async () => ({ comm_live: commLive }) },
    emit: (event: string) => listeners.get(event)?.forEach(act => act()),
    listening: (event: string) => listeners.get(event)?.size ?? 0
  };
}

const feeds: ReturnType<typeof runFeed>[] = [];
afterEach(() => feeds.splice(0).forEach(feed => feed.close()));

function open(model: ReturnType<typeof widget>) {
  const feed = runFeed({ run: 'one', home: 'h', model });
  const changed = vi.fn();
  feed.on('source', changed);
  feeds.push(feed);
  return { feed, changed };
}

describe('the source of a monitor without a server', () => {
  it('is the kernel until the kernel is restarted or shut down', async () => {
    const model = widget(true);
    const { feed, changed } = open(model);
    await Promise.resolve();
    expect(feed.source()).toBe('kernel');
    model.emit('comm_live_update');
    expect(feed.source()).toBe('');
    expect(changed).toHaveBeenCalledTimes(1);
  });

  it('is nothing if the kernel was gone before the view was drawn', async () => {
    const { feed, changed } = open(widget(false));
    await vi.waitFor(() => expect(feed.source()).toBe(''));
    expect(changed).toHaveBeenCalledTimes(1);
  });

  it('is no longer watched once the view is closed', () => {
    const model = widget(true);
    const { feed } = open(model);
    expect(model.listening('comm_live_update')).toBe(1);
    feed.close();
    expect(model.listening('comm_live_update')).toBe(0);
  });
});

describe('the clock of a monitor whose server is gone', () => {
  beforeEach(() => {
    vi.useFakeTimers();
    document.body.innerHTML =
      '<script id="jupyter-config-data" type="application/json">{"baseUrl": "/"}</script>';
  });

  afterEach(() => {
    vi.useRealTimers();
    vi.unstubAllGlobals();
    document.body.replaceChildren();
  });

  it('goes on from the last heartbeat of the kernel', async () => {
    vi.stubGlobal('fetch', vi.fn().mockRejectedValue(new Error('refused')));
    const { feed } = open(widget(true));
    expect(feed.now()).toBe(100);
    await vi.advanceTimersByTimeAsync(20_000);
    expect(feed.source()).toBe('');
    expect(feed.now()).toBe(120);
  });

  it('and its data are not set back to what the kernel sent before the server', async () => {
    const answer = {
      home: 'h',
      now: 130,
      revisions: {},
      sections: { head: { live: true, now: 130 } }
    };
    const fetch = vi.fn().mockImplementation(async () => Response.json(answer));
    vi.stubGlobal('fetch', fetch);
    const { feed } = open(widget(true));
    await vi.advanceTimersByTimeAsync(100);
    expect(feed.now()).toBeCloseTo(130.1);
    fetch.mockRejectedValue(new Error('refused'));
    await vi.advanceTimersByTimeAsync(20_000);
    expect(feed.source()).toBe('');
    expect(feed.get('head').now).toBe(130);
    expect(feed.now()).toBeCloseTo(150.1);
  });
});
