import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

import { BROKEN_REPLY, NO_REPLY, refusalSentence } from './error_sentences';
import type { IParameterGrid, IServers } from './trained';

/** State of a run; `broken` means that the run folder cannot be read. */
export type RunState =
  | 'queued'
  | 'created'
  | 'starting'
  | 'running'
  | 'stopping'
  | 'finished'
  | 'stopped'
  | 'failed'
  | 'lost'
  | 'broken';

/** One run of the list (a row of `GET llf/api/runs`). Times are Unix seconds. */
export interface IRun {
  id: string;
  name: string;
  state: RunState;
  step: number;
  total: number | null;
  created: number | null;
  reason: string | null;
  /** What the curves say against the result of a finished run. */
  finding: string | null;
  /** Estimated seconds until the last planned step. */
  remaining: number | null;
  /** Last logged training loss. A value that is not finite is a string such as `"NaN"`. */
  loss: number | string | null;
  /** Last logged evaluation loss. */
  eval_loss?: number | string | null;
  /** At most 20 losses, or rewards where the run logs any, in the order of their steps. */
  spark: number[];
  /** Key metrics other than the loss, the most important first. */
  counted: IKeyMetric[];
  /** Last values of the metrics of evaluations, by name as logged. */
  evaluated?: Record<string, number | string>;
  /** Whether there is a result or a complete checkpoint; null if the server has not looked for one. */
  weights: boolean | null;
  /** Where it runs, if that is more than one process of this machine. */
  place?: string;
  model: string;
  dataset: string;
  method: string;
  tags: string[];
  note: string;
}

/** How a metric is written, as `llf_core/runs/charts.py` declares it; a `share` is between 0 and 1. */
export type MetricForm = 'number' | 'share' | 'count' | 'rate' | 'bytes';

/** A key metric of a run with its label and format. */
export interface IKeyMetric {
  name: string;
  label: string;
  form: MetricForm;
  value: number | string;
}

/** The large chart of a run: the steps and values of each metric, of training and of evaluations. */
export interface IChart {
  title: string;
  form: MetricForm;
  lines: Record<string, [number[], (number | null)[]]>;
}

/** A metric of evaluations that runs can be sorted by, with the values that come first. */
export interface ISortMetric {
  name: string;
  label: string;
  form: MetricForm;
  better: 'higher' | 'lower';
}

/** One page of runs, newest first. */
export interface IRunPage {
  total: number;
  runs: IRun[];
  /** The metrics of evaluations that runs have. */
  metrics?: ISortMetric[];
  /** How many runs the server has indexed; absent once it has indexed all of them. */
  reading?: IIndexProgress;
}

/** Progress of the server's index of runs: until it is complete, a search may miss runs. */
export interface IIndexProgress {
  done: number;
  of: number;
}

/** A run in the bin. */
export interface IDeletedRun extends IRun {
  /** Unix seconds. */
  deleted: number;
  bytes: number;
}

/** One page of the bin, last deleted first. */
export interface IBinPage {
  total: number;
  runs: IDeletedRun[];
}

/** Search, filter, order and page size of a request for runs. */
export interface IRunQuery {
  limit: number;
  query: string;
  state: RunState | '';
  sort: string;
}

/** The result of a finished run: an adapter or a whole model. `bytes` is its size; `ended` is in Unix seconds. */
export interface IAdapter {
  run: string;
  name: string;
  base: string;
  method: string;
  rank: number | null;
  bytes: number;
  ended: number | null;
}

/** One page of results, newest first. */
export interface IAdapterPage {
  total: number;
  adapters: IAdapter[];
}

/** Another host, and how many of its runs were opened from this machine. */
export interface IHost {
  host: string;
  runs: number;
}

/** Name, tags and note of a run. The server refuses a change that names an old `revision`. */
export interface IMeta {
  revision: number;
  name: string;
  tags: string[];
  note: string;
}

/** A model of a run as it was measured on data. */
export interface IEvaluation {
  /** ISO 8601. */
  made: string;
  target: string;
  /** Names of the data sets. */
  data: string;
  examples: number;
  metrics: { label: string; text: string }[];
  /** Win rates against other models, by each judge: the rate with its interval, and `better`, `worse`, … */
  judged?: { judge: string; base: string; text: string; verdict: string }[];
  /** Why it cannot be read; empty for a valid one. */
  problem: string;
}

/** A folder with a model that a run was exported to. */
export interface IExport {
  format: string;
  /** ISO 8601. */
  made: string;
  step: number | null;
  /** Whether all checks of its receipt passed. */
  passed: boolean;
  bytes: number;
  folder: string;
  /** Whether the folder still exists. */
  there: boolean;
  /** Names it in the address of its download; empty if it lies outside the run's folder. */
  key: string;
}

/** Everything that the panel shows about one run. */
export interface IDetails {
  id: string;
  status: { state: RunState; reason: string | null; finding?: string | null };
  meta: IMeta;
  row?: IRun;
  /** What the run does after its last step; empty before that, or after its end. */
  doing?: string;
  /** Last logged value of each metric. A value that is not finite is a string such as `"NaN"`. */
  numbers?: Record<string, number | string | null>;
  counted?: IKeyMetric[];
  chart?: IChart;
  checkpoints?: number[];
  config?: Record<string, unknown>;
  environment?: Record<string, string>;
  events?: { type: string; message?: string; fix?: string; says?: string }[];
  answers?: { prompt: string; step: number; text: string }[];
  /** What the run trains, and which servers load its result; null where it is not known. */
  trained?: { grid: IParameterGrid | null; servers: IServers | null };
  /** Newest first. */
  evaluations?: IEvaluation[];
  /** Newest first. */
  exports?: IExport[];
  log?: string[];
}

/** Python code that came with a run or a model. The server reads it and does not execute it. */
export interface IForeignCode {
  /** What the code belongs to: a model, or the reward functions. */
  owner: string;
  folder: string;
  sha256: string;
  /** Each file with its first lines. */
  files: { name: string; path: string; lines: string[] }[];
  /** Number of files that are not shown. */
  more: number;
  /** Classes that the files of a model name. */
  references: string[];
}

/** The code that the user must allow before a run is trained again. `sha256` is the hash of all of it. */
export interface ICodeToAllow {
  sha256: string;
  code: IForeignCode[];
}

/** Version and settings of the server extension. `home` is a hash of its LLF_HOME, `folder` the path that is shown. */
export interface IVersion {
  llf: string;
  formats: number[];
  home: string;
  folder: string;
  training: boolean;
}

/** A failed request; its message is a sentence. `status` is the HTTP status, or 0 if the server did not answer. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string
  ) {
    super(message);
  }
}

/** The server's API as the panel uses it; tests implement it without a server. */
export interface IApi {
  /** The host whose mirrored runs all requests are about; empty for the runs of this machine. */
  host: string;
  version(): Promise<IVersion>;
  listRuns(request: IRunQuery): Promise<IRunPage>;
  listAdapters(limit: number): Promise<IAdapterPage>;
  listHosts(): Promise<{ hosts: IHost[] }>;
  runDetails(id: string): Promise<IDetails>;
  /** Returns the code that the user must allow before the run is trained again. */
  codeToAllow(id: string): Promise<ICodeToAllow>;
  /** Returns the current name, tags and note of a run. */
  runMeta(id: string): Promise<IMeta>;
  /** Sends a request such as `stop` or `checkpoint` to a live run. */
  sendRequest(id: string, type: string): Promise<void>;
  /** Changes name, tags or note; the server answers 409 if another view changed them after `revision`. */
  updateMeta(
    id: string,
    change: Partial<IMeta> & { revision: number }
  ): Promise<IMeta>;
  /** Moves a run to the bin, from which `restore` brings it back. */
  moveToBin(id: string): Promise<void>;
  listBin(limit: number): Promise<IBinPage>;
  restore(id: string): Promise<void>;
  /** Deletes a run of the bin permanently. */
  deletePermanently(id: string): Promise<void>;
  /** What a saved notebook keeps of a run, by MIME type. */
  runSummary(id: string): Promise<Record<string, unknown>>;
  /** Returns the address of an export as a zip file. */
  exportUrl(id: string, key: string): string;
}

/** How long a read may take, in milliseconds. The panel would wait forever for a reply that got lost. */
const READ_TIMEOUT = 60_000;

/** Client of the routes of `llf_widgets.server`, below the server's base URL. All methods throw `ApiError`. */
export class Api implements IApi {
  host = '';

  constructor(
    private _settings: ServerConnection.ISettings,
    private _readTimeout = READ_TIMEOUT
  ) {}

  version(): Promise<IVersion> {
    return this._get<IVersion>('version');
  }

  listRuns(request: IRunQuery): Promise<IRunPage> {
    const { limit, query, state, sort } = request;
    return this._get<IRunPage>('runs', {
      offset: '0',
      limit: `${limit}`,
      query,
      state,
      sort
    });
  }

  listAdapters(limit: number): Promise<IAdapterPage> {
    return this._get<IAdapterPage>('adapters', { limit: `${limit}` });
  }

  listHosts(): Promise<{ hosts: IHost[] }> {
    return this._get('hosts');
  }

  runDetails(id: string): Promise<IDetails> {
    return this._get<IDetails>(`runs/${encodeURIComponent(id)}`, {
      details: '1'
    });
  }

  codeToAllow(id: string): Promise<ICodeToAllow> {
    return this._get<ICodeToAllow>(`runs/${encodeURIComponent(id)}/code`);
  }

  async runMeta(id: string): Promise<IMeta> {
    const response = await this._get<IDetails>(
      `runs/${encodeURIComponent(id)}`
    );
    return response.meta;
  }

  async sendRequest(id: string, type: string): Promise<void> {
    await this._send('POST', `runs/${encodeURIComponent(id)}/control`, {
      type,
      by: 'sidebar'
    });
  }

  updateMeta(
    id: string,
    change: Partial<IMeta> & { revision: number }
  ): Promise<IMeta> {
    return this._send<IMeta>(
      'PATCH',
      `runs/${encodeURIComponent(id)}/meta`,
      change
    );
  }

  async moveToBin(id: string): Promise<void> {
    await this._send('POST', `runs/${encodeURIComponent(id)}/bin`, {});
  }

  listBin(limit: number): Promise<IBinPage> {
    return this._get<IBinPage>('bin', { limit: `${limit}` });
  }

  async restore(id: string): Promise<void> {
    await this._send('POST', `bin/${encodeURIComponent(id)}/restore`, {});
  }

  async deletePermanently(id: string): Promise<void> {
    await this._send('DELETE', `bin/${encodeURIComponent(id)}`, {});
  }

  /**
   * Whether the server reads the LLF_HOME whose hash is `home`, and that folder has the run. A view is drawn from the
   * server only then; otherwise it would show a run of the same id in another folder, or nothing.
   */
  async hasRun(id: string, home: string): Promise<boolean> {
    try {
      if ((await this.version()).home !== home) {
        return false;
      }
      await this._get(`runs/${encodeURIComponent(id)}`);
      return true;
    } catch (error) {
      if (error instanceof ApiError && [400, 403, 404].includes(error.status)) {
        return false;
      }
      throw error;
    }
  }

  /** Returns the JavaScript module and the style sheet of the monitor. */
  monitorModule(): Promise<{ module: string; css: string }> {
    return this._get('monitor');
  }

  /** What a saved notebook keeps of a run, by MIME type. */
  async runSummary(id: string): Promise<Record<string, unknown>> {
    const response = await this._get<{ data: Record<string, unknown> }>(
      `runs/${encodeURIComponent(id)}/summary`
    );
    return response.data;
  }

  exportUrl(id: string, key: string): string {
    return URLExt.join(
      this._settings.baseUrl,
      'llf/api/runs',
      encodeURIComponent(id),
      'exports',
      `${encodeURIComponent(key)}.zip${this._ofHost('runs')}`
    );
  }

  /** The query string of a route, with the host if the route is about runs. */
  private _ofHost(
    route: string,
    parameters: Record<string, string> = {}
  ): string {
    const host =
      this.host && route.startsWith('runs') ? { host: this.host } : {};
    return URLExt.objectToQueryString({ ...parameters, ...host });
  }

  private _get<T>(
    route: string,
    parameters: Record<string, string> = {}
  ): Promise<T> {
    return this._request<T>(
      route,
      { signal: AbortSignal.timeout(this._readTimeout) },
      this._ofHost(route, parameters)
    );
  }

  private _send<T>(method: string, route: string, body: object): Promise<T> {
    return this._request<T>(
      route,
      { method, body: JSON.stringify(body) },
      this._ofHost(route)
    );
  }

  /**
   * @throws {ApiError} if the status is not 2xx or the server does not answer; its message is the server's, if it sent a sentence
   */
  private async _request<T>(
    route: string,
    options: RequestInit,
    search: string
  ): Promise<T> {
    const url =
      URLExt.join(this._settings.baseUrl, 'llf', 'api', route) + search;
    let response: Response;
    try {
      response = await ServerConnection.makeRequest(
        url,
        options,
        this._settings
      );
    } catch {
      throw new ApiError(0, NO_REPLY);
    }
    if (!response.ok) {
      const { status } = response;
      const body: unknown = await response.json().catch(() => null);
      throw new ApiError(status, refusalSentence(status, body));
    }
    try {
      return (await response.json()) as T;
    } catch {
      throw new ApiError(0, BROKEN_REPLY);
    }
  }
}
