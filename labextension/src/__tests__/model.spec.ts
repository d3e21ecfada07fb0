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

  it('narrows on the server, from the first page on', async () => {
    api.all = [run('a', { name: 'lora' }), run('b', { name: 'full' })];
    void model.start();
    await pass(200);
    void model.narrow({ query: 'lora', state: 'running', sort: 'name' });
    await pass(200);
    expect(api.wanted).toMatchObject({
      query: 'lora',
      state: 'running',
      sort: 'name',
      limit: 50
    });
    expect(model.runs.map(item => item.id)).toEqual(['a']);
    expect(model.isFiltered).toBe(true);
  });

  it('asks for the adapters seldom, and at once where a run has ended', async () => {
    api.all = [run('a')];
    void model.start();
    await pass(2500);
    expect(api.asked.filter(route => route === 'adapters')).toHaveLength(1);
    const told: string[] = [];
    model.ended.connect((_, { run: one, well }) => {
      told.push(`${one.id} ${well}`);
    });
    api.all = [run('a', { state: 'finished' })];
    await pass(1500);
    expect(told).toEqual(['a true']);
    expect(
      api.asked.filter(route => route === 'adapters').length
    ).toBeGreaterThan(1);
  });

  it('tells of an end that a filter leaves out', async () => {
    api.all = [run('a')];
    void model.start();
    void model.narrow({ state: 'running' });
    await pass(500);
    const told: string[] = [];
    model.ended.connect((_, { run: one, well }) => {
      told.push(`${one.id} ${well}`);
    });
    api.all = [run('a', { state: 'failed' })];
    await pass(1500);
    expect(model.runs).toEqual([]);
    expect(told).toEqual(['a false']);
  });

  it('takes no answer to an earlier question', async () => {
    api.all = [run('a', { name: 'one' }), run('b', { name: 'two' })];
    void model.start();
    await pass(200);
    const answer = api.runs.bind(api);
    let slow = true;
    api.runs = async wanted => {
      const found = await answer(wanted);
      if (slow) {
        slow = false;
        await new Promise(resolve => setTimeout(resolve, 500));
      }
      return found;
    };
    void model.narrow({ query: 'one' });
    await pass(50);
    void model.narrow({ query: 'two' });
    await pass(1000);
    expect(model.runs.map(item => item.id)).toEqual(['b']);
  });

  it('tells of no run that had ended before the page was opened', async () => {
    api.all = [run('a', { state: 'failed' })];
    const told = vi.fn();
    model.ended.connect(told);
    void model.start();
    await pass(2500);
    expect(told).not.toHaveBeenCalled();
  });

  it('follows the run whose details are shown, and goes back where it is gone', async () => {
    api.all = [run('a')];
    void model.start();
    await pass(200);
    void model.open('a');
    await pass(1500);
    expect(model.details?.id).toBe('a');
    expect(
      api.asked.filter(route => route === 'details a').length
    ).toBeGreaterThan(1);
    api.all = [];
    await pass(1500);
    expect(model.details).toBeNull();
    expect(model.said).toContain('There is no run a');
    expect(model.health).toBe('ready');
  });

  it('keeps the details that are shown where only they get no answer', async () => {
    api.all = [run('a')];
    void model.start();
    await pass(200);
    void model.open('a');
    await pass(200);
    const details = vi.spyOn(api, 'details');
    details.mockRejectedValue(new ApiError(0, 'reset'));
    await pass(1500);
    expect(model.details?.id).toBe('a');
    expect(model.health).toBe('unreachable');
    details.mockRestore();
    await pass(3500);
    expect(model.health).toBe('ready');
  });

  it('has the words of a server that refuses, as long as it does', async () => {
    void model.start();
    await pass(200);
    api.down = new ApiError(403, 'Log in first.');
    await pass(1500);
    expect(model.health).toBe('unreachable');
    expect(model.refusal).toBe('Log in first.');
    api.down = new ApiError(0, 'refused');
    void model.refresh();
    await pass(200);
    expect(model.refusal).toBe('');
  });

  it('chooses runs, and keeps only those that are listed', async () => {
    api.all = [run('a'), run('b'), run('c')];
    void model.start();
    await pass(200);
    model.select('b');
    model.toggle('a');
    expect(model.selected.map(item => item.id)).toEqual(['a', 'b']);
    model.toggle('b');
    expect(model.selected.map(item => item.id)).toEqual(['a']);
    api.all = [run('b')];
    await pass(1500);
    expect(model.selected).toEqual([]);
  });

  it('says in the words of the server why something was refused', async () => {
    void model.start();
    await pass(200);
    const refused = model.act(async () => {
      throw new ApiError(409, 'The run is finished.');
    });
    await pass(200);
    expect(await refused).toBe(false);
    expect(model.said).toBe('The run is finished.');
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
