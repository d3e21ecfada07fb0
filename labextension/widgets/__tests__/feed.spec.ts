import { afterEach, describe, expect, it, vi } from 'vitest';
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
