import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { ApiError } from '../api';
import { RunsModel } from '../model';
import { FakeApi, run } from './runs';

let api: FakeApi;
let visible: boolean;
let model: RunsModel;

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'Date'] });
  api = new FakeApi();
  visible = true;
  model = new RunsModel({
    api,
    pageVersion: '0.1.0',
    isVisible: () => visible,
    interval: 1000
  });
});

afterEach(() => {
  model.dispose();
  vi.useRealTimers();
});

/** Lets the poll run for a while. */
async function pass(milliseconds: number): Promise<void> {
  for (let at = 0; at < milliseconds; at += 50) {
    await vi.advanceTimersByTimeAsync(50);
    await new Promise(resolve => setImmediate(resolve));
  }
}

describe('RunsModel', () => {
  it('asks for the version once, then for the runs at each tick', async () => {
    api.all = [run('a')];
    void model.start();
    await pass(3500);
    expect(model.health).toBe('ready');
    expect(model.runs.map(item => item.id)).toEqual(['a']);
    expect(api.asked.filter(route => route === 'version')).toHaveLength(1);
    const ticks = api.asked.filter(route => route === 'runs 50').length;
    expect(ticks).toBeGreaterThanOrEqual(3);
    expect(ticks).toBeLessThanOrEqual(5);
  });

  it('asks nothing while the panel is out of sight', async () => {
    visible = false;
    void model.start();
    await pass(5000);
    expect(api.asked).toEqual([]);
    visible = true;
    await pass(2500);
    expect(api.asked).toContain('runs 50');
  });

  it('says missing on 404 and backs off', async () => {
    api.down = new ApiError(404, 'Not Found');
    void model.start();
    await pass(20_000);
    expect(model.health).toBe('missing');
    expect(api.asked.length).toBeLessThan(12);
  });

  it('keeps the last list while the server is silent, then asks for its version again', async () => {
    api.all = [run('a')];
    void model.start();
    await pass(500);
    api.down = new ApiError(0, 'refused');
    await pass(2500);
    expect(model.health).toBe('unreachable');
    expect(model.runs).toHaveLength(1);

    api.down = null;
    api.answer = { ...api.answer, llf: '0.2.0' };
    void model.refresh();
    await pass(500);
    expect(model.health).toBe('ready');
    expect(model.mismatch).toBe(true);
  });

  it('shows 50, then 50 more, up to what the server hands out', async () => {
    api.all = Array.from({ length: 300 }, (_, index) => run(`r${index}`));
    void model.start();
    await pass(200);
    expect(model.runs).toHaveLength(50);
    expect(model.total).toBe(300);
    for (const expected of [100, 150, 200]) {
      expect(model.hasMore).toBe(true);
      void model.showMore();
      await pass(200);
      expect(model.runs).toHaveLength(expected);
    }
    expect(model.hasMore).toBe(false);
  });

  it('stops asking once disposed', async () => {
    void model.start();
    await pass(200);
    model.dispose();
    const before = api.asked.length;
    await pass(5000);
    expect(api.asked).toHaveLength(before);
  });
});
