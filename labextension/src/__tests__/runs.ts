import {
  ApiError,
  type IAdapter,
  type IApi,
  type IDeletedRun,
  type IBinPage,
  type IChart,
  type ICodeToAllow,
  type IKeyMetric,
  type IDetails,
  type IHost,
  type IMeta,
  type IRun,
  type IRunPage,
  type ISortMetric,
  type IVersion,
  type IRunQuery
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
    finding: null,
    remaining: null,
    loss: 1.28,
    spark: [1.8, 1.5, 1.28],
    counted: [],
    weights: true,
    model: 'smollm2',
    dataset: '/data/faq.jsonl',
    method: 'lora',
    tags: [],
    note: '',
    ...more
  };
}

/** The large chart of a run, with steps and values by metric. */
export function chart(title: string, lines: IChart['lines']): IChart {
  return { title, form: 'number', lines };
}

/** A key metric as the server sends it. */
export function keyMetric(
  name: string,
  label: string,
  form: IKeyMetric['form'],
  value: number
): IKeyMetric {
  return { name, label, form, value };
}

/** A server whose answers a test sets. */
export class FakeApi implements IApi {
  versionInfo: IVersion = {
    llf: '0.1.0',
    formats: [1],
    home: 'ab',
    folder: '~/.llf/runs',
    training: true
  };
  host = '';
  allHosts: IHost[] = [];
  allRuns: IRun[] = [];
  sortMetrics: ISortMetric[] = [];
  serverDown: ApiError | null = null;
  foreignCode: ICodeToAllow = { sha256: '', code: [] };
  requests: string[] = [];

  async version(): Promise<IVersion> {
    this.requests.push('version');
    if (this.serverDown) {
      throw this.serverDown;
    }
    return this.versionInfo;
  }

  async listRuns(query: IRunQuery): Promise<IRunPage> {
    this.requests.push(`runs ${query.limit}`);
    this.lastQuery = query;
    if (this.serverDown) {
      throw this.serverDown;
    }
    const matching = this.allRuns.filter(
      item =>
        item.name.includes(query.query) &&
        (query.state === '' || item.state === query.state)
    );
    return {
      total: matching.length,
      runs: matching.slice(0, query.limit),
      metrics: this.sortMetrics
    };
  }

  async listHosts(): Promise<{ hosts: IHost[] }> {
    this.requests.push('hosts');
    return { hosts: this.allHosts };
  }

  async listAdapters(): Promise<{ total: number; adapters: IAdapter[] }> {
    this.requests.push('adapters');
    return { total: this.allAdapters.length, adapters: this.allAdapters };
  }

  async runDetails(id: string): Promise<IDetails> {
    this.requests.push(`details ${id}`);
    const found = this.allRuns.find(item => item.id === id);
    if (!found) {
      throw new ApiError(404, `There is no run ${id}.`);
    }
    const { name, tags, note, state, reason } = found;
    return {
      id,
      status: { state, reason },
      meta: { revision: 1, name, tags, note },
      row: found,
      ...this.extraDetails
    };
  }

  async codeToAllow(id: string): Promise<ICodeToAllow> {
    this.requests.push(`code ${id}`);
    return this.foreignCode;
  }

  async runMeta(id: string): Promise<IMeta> {
    return (await this.runDetails(id)).meta;
  }

  async sendRequest(id: string, type: string): Promise<void> {
    this.requests.push(`${type} ${id}`);
    if (this.requestError) {
      throw this.requestError;
    }
  }

  async updateMeta(
    id: string,
    change: Partial<IMeta> & { revision: number }
  ): Promise<IMeta> {
    this.requests.push(`change ${id} ${JSON.stringify(change)}`);
    const concurrentEdit = this.concurrentEdits.shift();
    if (concurrentEdit) {
      this.allRuns = this.allRuns.map(one =>
        one.id === id ? concurrentEdit : one
      );
      throw new ApiError(409, 'It was changed in another view meanwhile.');
    }
    return { revision: 2, name: '', tags: [], note: '', ...change };
  }

  async moveToBin(id: string): Promise<void> {
    this.requests.push(`remove ${id}`);
    if (this.notMovable.includes(id)) {
      throw new ApiError(409, `${id} is running.`);
    }
    const found = this.allRuns.filter(item => item.id === id);
    this.allRuns = this.allRuns.filter(item => item.id !== id);
    this.deletedRuns.push(
      ...found.map(item => ({ ...item, deleted: 500, bytes: 2_000_000 }))
    );
  }

  async listBin(limit: number): Promise<IBinPage> {
    this.requests.push(`bin ${limit}`);
    return {
      total: this.deletedRuns.length,
      runs: this.deletedRuns.slice(0, limit)
    };
  }

  async restore(id: string): Promise<void> {
    this.requests.push(`restore ${id}`);
    this.allRuns.push(this._take(id));
  }

  async deletePermanently(id: string): Promise<void> {
    this.requests.push(`remove for good ${id}`);
    this._take(id);
  }

  async runSummary(id: string): Promise<Record<string, unknown>> {
    this.requests.push(`summary ${id}`);
    return { 'text/plain': `A summary of ${id}.` };
  }

  exportUrl(id: string, key: string): string {
    return `/llf/api/runs/${id}/exports/${key}.zip`;
  }

  private _take(id: string): IDeletedRun {
    const found = this.deletedRuns.find(item => item.id === id);
    if (!found) {
      throw new ApiError(404, 'There is no such run in the bin.');
    }
    this.deletedRuns = this.deletedRuns.filter(item => item.id !== id);
    return found;
  }

  deletedRuns: IDeletedRun[] = [];
  /** Ids of runs that the server refuses to move to the bin. */
  notMovable: string[] = [];

  /** States of a run that another view saves just before the next changes here. */
  concurrentEdits: IRun[] = [];
  allAdapters: IAdapter[] = [];
  extraDetails: Partial<IDetails> = {};
  requestError: ApiError | null = null;
  lastQuery: IRunQuery | null = null;
}
