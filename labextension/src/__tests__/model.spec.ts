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

/** A model that keeps the order of its list in a storage. */
function stored(storage: Pick<Storage, 'getItem' | 'setItem'>): RunsModel {
  return new RunsModel({
    api,
    pageVersion: '0.1.0',
    isVisible: () => true,
    storage
  });
}

describe('RunsModel', () => {
  it('keeps the order of the list over a reload, and forgets one that it does not know', async () => {
    const kept = new Map<string, string>();
    const storage = {
      getItem: (key: string) => kept.get(key) ?? null,
      setItem: (key: string, value: string) => void kept.set(key, value)
    };
    const first = stored(storage);
    void first.setFilter({ sort: 'metric:eval_rougeL', query: 'words' });
    first.dispose();
    const second = stored(storage);
    expect(second.filter).toMatchObject({
      sort: 'metric:eval_rougeL',
      query: ''
    });
    second.dispose();
    kept.forEach((_, key) => kept.set(key, 'metric:loss'));
    const third = stored(storage);
    expect(third.filter.sort).toBe('newest');
    third.dispose();
  });

  it('lists the runs of another host, and no end of a run that it left', async () => {
    api.allRuns = [run('here')];
    api.allHosts = [{ host: 'box', runs: 1 }];
    const ended = vi.fn();
    model.runEnded.connect(ended);
    void model.start();
    await pass(200);
    expect(model.hosts).toEqual([{ host: 'box', runs: 1 }]);
    model.select('here');
    api.allRuns = [run('there', { state: 'finished' })];
    void model.setHost('box');
    expect([model.runs, model.serverStatus]).toEqual([[], 'loading']);
    await pass(200);
    expect(model.runs.map(({ id }) => id)).toEqual(['there']);
    expect(model.nameOf(model.runs[0])).toBe('ssh://box/there');
    expect(model.selectedRuns).toEqual([]);
    expect(ended).not.toHaveBeenCalled();
  });

  it('sorts for this page where the storage takes nothing', async () => {
    const full = stored({
      getItem: () => null,
      setItem: () => {
        throw new Error('full');
      }
    });
    void full.start();
    await pass(200);
    void full.setFilter({ sort: 'name' });
    await pass(1500);
    expect(api.lastQuery?.sort).toBe('name');
    full.dispose();
  });

  it('tells the metric that the list is sorted by once a run has it', async () => {
    const rouge = {
      name: 'eval_rougeL',
      label: 'ROUGE-L',
      form: 'share',
      better: 'higher'
    } as const;
    void model.start();
    await pass(200);
    void model.setFilter({ sort: 'metric:eval_rougeL' });
    expect(model.sortMetric).toBeNull();
    api.sortMetrics = [rouge];
    await pass(1500);
    expect(model.sortMetric).toEqual(rouge);
    expect(api.lastQuery?.sort).toBe('metric:eval_rougeL');
  });

  it('requests the version once, and the runs at each poll', async () => {
    api.allRuns = [run('a')];
    void model.start();
    await pass(3500);
    expect(model.serverStatus).toBe('ready');
    expect(model.runs.map(item => item.id)).toEqual(['a']);
    expect(api.requests.filter(route => route === 'version')).toHaveLength(1);
    const ticks = api.requests.filter(route => route === 'runs 50').length;
    expect(ticks).toBeGreaterThanOrEqual(3);
    expect(ticks).toBeLessThanOrEqual(5);
  });

  it('does not poll while the panel is hidden', async () => {
    visible = false;
    void model.start();
    await pass(5000);
    expect(api.requests).toEqual([]);
    visible = true;
    await pass(2500);
    expect(api.requests).toContain('runs 50');
  });

  it('reports a missing extension on 404 and backs off', async () => {
    api.serverDown = new ApiError(404, 'Not Found');
    void model.start();
    await pass(20_000);
    expect(model.serverStatus).toBe('missing');
    expect(api.requests.length).toBeLessThan(12);
  });

  it('keeps the list while the server does not answer, then requests its version again', async () => {
    api.allRuns = [run('a')];
    void model.start();
    await pass(500);
    api.serverDown = new ApiError(0, 'refused');
    await pass(2500);
    expect(model.serverStatus).toBe('unreachable');
    expect(model.runs).toHaveLength(1);

    api.serverDown = null;
    api.versionInfo = { ...api.versionInfo, llf: '0.2.0' };
    void model.refresh();
    await pass(500);
    expect(model.serverStatus).toBe('ready');
    expect(model.versionMismatch).toBe(true);
  });

  it('lists 50 runs, then 50 more, up to the maximum of the server', async () => {
    api.allRuns = Array.from({ length: 300 }, (_, index) => run(`r${index}`));
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

  it('filters on the server and starts at the first page', async () => {
    api.allRuns = [run('a', { name: 'lora' }), run('b', { name: 'full' })];
    void model.start();
    await pass(200);
    void model.setFilter({ query: 'lora', state: 'running', sort: 'name' });
    await pass(200);
    expect(api.lastQuery).toMatchObject({
      query: 'lora',
      state: 'running',
      sort: 'name',
      limit: 50
    });
    expect(model.runs.map(item => item.id)).toEqual(['a']);
    expect(model.isFiltered).toBe(true);
  });

  it('requests the adapters rarely, and as soon as a run has ended', async () => {
    api.allRuns = [run('a')];
    void model.start();
    await pass(2500);
    expect(api.requests.filter(route => route === 'adapters')).toHaveLength(1);
    const told: string[] = [];
    model.runEnded.connect((_, { run: one, succeeded: well }) => {
      told.push(`${one.id} ${well}`);
    });
    api.allRuns = [run('a', { state: 'finished' })];
    await pass(1500);
    expect(told).toEqual(['a true']);
    expect(
      api.requests.filter(route => route === 'adapters').length
    ).toBeGreaterThan(1);
  });

  it('reports the end of a run that the filter excludes', async () => {
    api.allRuns = [run('a')];
    void model.start();
    void model.setFilter({ state: 'running' });
    await pass(500);
    const told: string[] = [];
    model.runEnded.connect((_, { run: one, succeeded: well }) => {
      told.push(`${one.id} ${well}`);
    });
    api.allRuns = [run('a', { state: 'failed' })];
    await pass(1500);
    expect(model.runs).toEqual([]);
    expect(told).toEqual(['a false']);
  });

  it('ignores the response to an earlier filter', async () => {
    api.allRuns = [run('a', { name: 'one' }), run('b', { name: 'two' })];
    void model.start();
    await pass(200);
    const answer = api.listRuns.bind(api);
    let slow = true;
    api.listRuns = async wanted => {
      const found = await answer(wanted);
      if (slow) {
        slow = false;
        await new Promise(resolve => setTimeout(resolve, 500));
      }
      return found;
    };
    void model.setFilter({ query: 'one' });
    await pass(50);
    void model.setFilter({ query: 'two' });
    await pass(1000);
    expect(model.runs.map(item => item.id)).toEqual(['b']);
  });

  it('does not report runs that ended before the page was opened', async () => {
    api.allRuns = [run('a', { state: 'failed' })];
    const told = vi.fn();
    model.runEnded.connect(told);
    void model.start();
    await pass(2500);
    expect(told).not.toHaveBeenCalled();
  });

  it('updates the details, and goes back to the list if the run was deleted', async () => {
    api.allRuns = [run('a')];
    void model.start();
    await pass(200);
    void model.openDetails('a');
    await pass(1500);
    expect(model.details?.id).toBe('a');
    expect(
      api.requests.filter(route => route === 'details a').length
    ).toBeGreaterThan(1);
    api.allRuns = [];
    await pass(1500);
    expect(model.details).toBeNull();
    expect(model.statusMessage).toContain('There is no run a');
    expect(model.serverStatus).toBe('ready');
  });

  it('keeps the details if only their request fails', async () => {
    api.allRuns = [run('a')];
    void model.start();
    await pass(200);
    void model.openDetails('a');
    await pass(200);
    const details = vi.spyOn(api, 'runDetails');
    details.mockRejectedValue(new ApiError(0, 'reset'));
    await pass(1500);
    expect(model.details?.id).toBe('a');
    expect(model.serverStatus).toBe('unreachable');
    details.mockRestore();
    await pass(3500);
    expect(model.serverStatus).toBe('ready');
  });

  it('keeps the error message of the server until it answers again', async () => {
    void model.start();
    await pass(200);
    api.serverDown = new ApiError(403, 'Log in first.');
    await pass(1500);
    expect(model.serverStatus).toBe('unreachable');
    expect(model.serverError).toBe('Log in first.');
    api.serverDown = new ApiError(0, 'The Jupyter server does not answer.');
    void model.refresh();
    await pass(200);
    expect(model.serverError).toBe('The Jupyter server does not answer.');
    api.serverDown = null;
    void model.refresh();
    await pass(200);
    expect(model.serverError).toBe('');
  });

  it('keeps the bin that it knows while the server refuses it, and forgets it on a server without one', async () => {
    const bin = vi.spyOn(api, 'listBin');
    bin.mockResolvedValueOnce({ total: 3, runs: [] });
    void model.start();
    await pass(200);
    expect(model.binTotal).toBe(3);
    bin.mockRejectedValue(new ApiError(500, 'Unexpected error.'));
    void model.showBin(true);
    await pass(200);
    expect([model.binTotal, model.bin?.total]).toEqual([3, 3]);
    bin.mockRejectedValue(new ApiError(404, 'Not found.'));
    void model.refresh();
    await pass(200);
    expect([model.binTotal, model.bin?.total]).toEqual([0, 0]);
    expect(model.serverStatus).toBe('ready');
  });

  it('selects runs, and keeps only those of the list', async () => {
    api.allRuns = [run('a'), run('b'), run('c')];
    void model.start();
    await pass(200);
    model.select('b');
    model.toggle('a');
    expect(model.selectedRuns.map(item => item.id)).toEqual(['a', 'b']);
    model.toggle('b');
    expect(model.selectedRuns.map(item => item.id)).toEqual(['a']);
    api.allRuns = [run('b')];
    await pass(1500);
    expect(model.selectedRuns).toEqual([]);
  });

  it("shows the server's reason for a refusal", async () => {
    void model.start();
    await pass(200);
    const refused = model.runAction(async () => {
      throw new ApiError(409, 'The run is finished.');
    });
    await pass(200);
    expect(await refused).toBe(false);
    expect(model.statusMessage).toBe('The run is finished.');
  });

  it('stops polling once disposed', async () => {
    void model.start();
    await pass(200);
    model.dispose();
    const before = api.requests.length;
    await pass(5000);
    expect(api.requests).toHaveLength(before);
  });
});
