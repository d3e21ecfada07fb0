import {
  ApiError,
  type IAdapter,
  type IApi,
  type IBinned,
  type IBinPage,
  type ICode,
  type ICounted,
  type IDetails,
  type IMeta,
  type IRun,
  type IVersion,
  type IWanted
} from '../api';

/** A run as the server lists it. */
export function run(id: string, more: Partial<IRun> = {}): IRun {
  return {
    id,
    name: `name of ${id}`,
    state: 'running',
    step: 93,
    total: 141,
    created: 1000,
    reason: null,
    remaining: null,
    loss: 1.28,
    spark: [1.8, 1.5, 1.28],
    counted: [],
    model: 'smollm2',
    dataset: '/data/faq.jsonl',
    method: 'lora',
    tags: [],
    note: '',
    ...more
  };
}

/** A number that counts, as the server tells it. */
export function counted(
  name: string,
  label: string,
  form: ICounted['form'],
  value: number
): ICounted {
  return { name, label, form, value };
}

/** A server whose answers a test sets. */
export class FakeApi implements IApi {
  answer: IVersion = {
    llf: '0.1.0',
    formats: [1],
    home: 'ab',
    folder: '~/.llf/runs',
    training: true
  };
  all: IRun[] = [];
  down: ApiError | null = null;
  foreign: ICode = { sha256: '', code: [] };
  asked: string[] = [];

  async version(): Promise<IVersion> {
    this.asked.push('version');
    if (this.down) {
      throw this.down;
    }
    return this.answer;
  }

  async runs(wanted: IWanted): Promise<{ total: number; runs: IRun[] }> {
    this.asked.push(`runs ${wanted.limit}`);
    this.wanted = wanted;
    if (this.down) {
      throw this.down;
    }
    const fit = this.all.filter(
      item =>
        item.name.includes(wanted.query) &&
        (wanted.state === '' || item.state === wanted.state)
    );
    return { total: fit.length, runs: fit.slice(0, wanted.limit) };
  }

  async adapters(): Promise<{ total: number; adapters: IAdapter[] }> {
    this.asked.push('adapters');
    return { total: this.made.length, adapters: this.made };
  }

  async details(id: string): Promise<IDetails> {
    this.asked.push(`details ${id}`);
    const found = this.all.find(item => item.id === id);
    if (!found) {
      throw new ApiError(404, `There is no run ${id}.`);
    }
    const { name, tags, note, state, reason } = found;
    return {
      id,
      status: { state, reason },
      meta: { revision: 1, name, tags, note },
      row: found,
      ...this.more
    };
  }

  async code(id: string): Promise<ICode> {
    this.asked.push(`code ${id}`);
    return this.foreign;
  }

  async meta(id: string): Promise<IMeta> {
    return (await this.details(id)).meta;
  }

  async control(id: string, type: string): Promise<void> {
    this.asked.push(`${type} ${id}`);
    if (this.refusal) {
      throw this.refusal;
    }
  }

  async change(
    id: string,
    change: Partial<IMeta> & { revision: number }
  ): Promise<IMeta> {
    this.asked.push(`change ${id} ${JSON.stringify(change)}`);
    const stale = this.stale.shift();
    if (stale) {
      this.all = this.all.map(one => (one.id === id ? stale : one));
      throw new ApiError(409, 'It was changed in another view meanwhile.');
    }
    return { revision: 2, name: '', tags: [], note: '', ...change };
  }

  async remove(id: string): Promise<void> {
    this.asked.push(`remove ${id}`);
    if (this.refused.includes(id)) {
      throw new ApiError(409, `${id} is running.`);
    }
    const found = this.all.filter(item => item.id === id);
    this.all = this.all.filter(item => item.id !== id);
    this.binned.push(
      ...found.map(item => ({ ...item, deleted: 500, bytes: 2_000_000 }))
    );
  }

  async bin(limit: number): Promise<IBinPage> {
    this.asked.push(`bin ${limit}`);
    return { total: this.binned.length, runs: this.binned.slice(0, limit) };
  }

  async restore(id: string): Promise<void> {
    this.asked.push(`restore ${id}`);
    this.all.push(this._take(id));
  }

  async removeForGood(id: string): Promise<void> {
    this.asked.push(`remove for good ${id}`);
    this._take(id);
  }

  async summary(id: string): Promise<Record<string, unknown>> {
    this.asked.push(`summary ${id}`);
    return { 'text/plain': `A summary of ${id}.` };
  }

  private _take(id: string): IBinned {
    const found = this.binned.find(item => item.id === id);
    if (!found) {
      throw new ApiError(404, 'There is no such run in the bin.');
    }
    this.binned = this.binned.filter(item => item.id !== id);
    return found;
  }

  binned: IBinned[] = [];
  /** Runs that the server does not move to the bin. */
  refused: string[] = [];

  /** What another view makes of a run just before it is changed here. */
  stale: IRun[] = [];
  made: IAdapter[] = [];
  more: Partial<IDetails> = {};
  refusal: ApiError | null = null;
  wanted: IWanted | null = null;
}
