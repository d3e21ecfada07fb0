import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';

/** What a run can be; `broken` is a folder that cannot be read. */
export type RunState =
  | 'created'
  | 'starting'
  | 'running'
  | 'stopping'
  | 'finished'
  | 'stopped'
  | 'failed'
  | 'lost'
  | 'broken';

/** One run, as the server lists it. Times are Unix seconds. */
export interface IRun {
  id: string;
  name: string;
  state: RunState;
  step: number;
  total: number | null;
  created: number | null;
  reason: string | null;
  /** Seconds to the last planned step. */
  remaining: number | null;
  /** The last logged loss of the training; spelled out where it is not finite, as in `"NaN"`. */
  loss: number | string | null;
  /** That of held-out examples. */
  eval_loss?: number | string | null;
  /** A few losses, or rewards where there are any, from the first to the last. */
  spark: number[];
  /** What counts beside the loss, the most telling first. */
  counted: ICounted[];
  model: string;
  dataset: string;
  method: string;
  tags: string[];
  note: string;
}

/** A number that tells how a run does; a `share` is from 0 to 1. */
export interface ICounted {
  name: string;
  label: string;
  form: 'number' | 'share' | 'count';
  value: number | string;
}

/** One page of runs, newest first. */
export interface IRunPage {
  total: number;
  runs: IRun[];
  /** How many runs the server has looked at, while these are not all. */
  reading?: IReading;
}

/** How far the server is in reading its runs. */
export interface IReading {
  done: number;
  of: number;
}

/** A run in the bin. */
export interface IBinned extends IRun {
  /** Unix seconds. */
  deleted: number;
  bytes: number;
}

/** One page of the bin, last deleted first. */
export interface IBinPage {
  total: number;
  runs: IBinned[];
}

/** Which runs are wanted, and in which order. */
export interface IWanted {
  limit: number;
  query: string;
  state: RunState | '';
  sort: string;
}

/** A result of a finished run. */
export interface IAdapter {
  run: string;
  name: string;
  base: string;
  method: string;
  rank: number | null;
  bytes: number;
  ended: number | null;
}

export interface IAdapterPage {
  total: number;
  adapters: IAdapter[];
}

/** Name, tags and note of a run. */
export interface IMeta {
  revision: number;
  name: string;
  tags: string[];
  note: string;
}

/** What the panel shows of one run. */
export interface IDetails {
  id: string;
  status: { state: RunState; reason: string | null };
  meta: IMeta;
  row?: IRun;
  /** The last logged value of each; one that is not finite is spelled out. */
  numbers?: Record<string, number | string | null>;
  counted?: ICounted[];
  curves?: Record<string, [number[], (number | null)[]]>;
  checkpoints?: number[];
  config?: Record<string, unknown>;
  environment?: Record<string, string>;
  events?: { type: string; message?: string; fix?: string; says?: string }[];
  answers?: { prompt: string; step: number; text: string }[];
  log?: string[];
}

/** Python code that a run would run, read without running it. */
export interface IForeignCode {
  /** What it belongs to: a model, or the reward functions. */
  owner: string;
  folder: string;
  sha256: string;
  /** Each with its first lines. */
  files: { name: string; path: string; lines: string[] }[];
  /** Files that are not shown. */
  more: number;
}

/** What must be allowed before a run is trained again, and the hash of all of it. */
export interface ICode {
  sha256: string;
  code: IForeignCode[];
}

/** What the server side is. */
export interface IVersion {
  llf: string;
  formats: number[];
  home: string;
  folder: string;
  training: boolean;
}

/** The server said no, or nothing at all (`status` 0). */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string
  ) {
    super(message);
  }
}

/** What the panel asks of the server. */
export interface IApi {
  version(): Promise<IVersion>;
  runs(wanted: IWanted): Promise<IRunPage>;
  adapters(limit: number): Promise<IAdapterPage>;
  details(id: string): Promise<IDetails>;
  /** The code that must be allowed before a run is trained again. */
  code(id: string): Promise<ICode>;
  /** Name, tags and note of a run as they are now. */
  meta(id: string): Promise<IMeta>;
  /** Drops a request into a live run. */
  control(id: string, type: string): Promise<void>;
  /** Changes name, tags or note where nobody else did meanwhile. */
  change(
    id: string,
    change: Partial<IMeta> & { revision: number }
  ): Promise<IMeta>;
  /** Moves a run to the bin. */
  remove(id: string): Promise<void>;
  bin(limit: number): Promise<IBinPage>;
  restore(id: string): Promise<void>;
  /** Removes a run from the bin for good. */
  removeForGood(id: string): Promise<void>;
  /** What a saved notebook keeps of a run, by MIME type. */
  summary(id: string): Promise<Record<string, unknown>>;
}

/** The routes of `llf_widgets.server`, under the server's base URL. */
export class Api implements IApi {
  constructor(private _settings: ServerConnection.ISettings) {}

  version(): Promise<IVersion> {
    return this._get<IVersion>('version');
  }

  runs(wanted: IWanted): Promise<IRunPage> {
    const { limit, query, state, sort } = wanted;
    return this._get<IRunPage>('runs', {
      offset: '0',
      limit: `${limit}`,
      query,
      state,
      sort
    });
  }

  adapters(limit: number): Promise<IAdapterPage> {
    return this._get<IAdapterPage>('adapters', { limit: `${limit}` });
  }

  details(id: string): Promise<IDetails> {
    return this._get<IDetails>(`runs/${encodeURIComponent(id)}`, {
      details: '1'
    });
  }

  code(id: string): Promise<ICode> {
    return this._get<ICode>(`runs/${encodeURIComponent(id)}/code`);
  }

  async meta(id: string): Promise<IMeta> {
    const found = await this._get<IDetails>(`runs/${encodeURIComponent(id)}`);
    return found.meta;
  }

  async control(id: string, type: string): Promise<void> {
    await this._send('POST', `runs/${encodeURIComponent(id)}/control`, {
      type,
      by: 'sidebar'
    });
  }

  change(
    id: string,
    change: Partial<IMeta> & { revision: number }
  ): Promise<IMeta> {
    return this._send<IMeta>(
      'PATCH',
      `runs/${encodeURIComponent(id)}/meta`,
      change
    );
  }

  async remove(id: string): Promise<void> {
    await this._send('POST', `runs/${encodeURIComponent(id)}/bin`, {});
  }

  bin(limit: number): Promise<IBinPage> {
    return this._get<IBinPage>('bin', { limit: `${limit}` });
  }

  async restore(id: string): Promise<void> {
    await this._send('POST', `bin/${encodeURIComponent(id)}/restore`, {});
  }

  async removeForGood(id: string): Promise<void> {
    await this._send('DELETE', `bin/${encodeURIComponent(id)}`, {});
  }

  /** Whether the server's LLF_HOME is the one meant, and holds the run. */
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

  /** The monitor's front end. */
  frontEnd(): Promise<{ module: string; css: string }> {
    return this._get('monitor');
  }

  /** What a saved notebook keeps of a run, by MIME type. */
  async summary(id: string): Promise<Record<string, unknown>> {
    const found = await this._get<{ data: Record<string, unknown> }>(
      `runs/${encodeURIComponent(id)}/summary`
    );
    return found.data;
  }

  private _get<T>(
    route: string,
    query: Record<string, string> = {}
  ): Promise<T> {
    return this._ask<T>(route, {}, URLExt.objectToQueryString(query));
  }

  private _send<T>(method: string, route: string, body: object): Promise<T> {
    return this._ask<T>(route, { method, body: JSON.stringify(body) });
  }

  /**
   * @throws {ApiError} where the answer is not 2xx, or no answer came; with the server's own sentence where it has one.
   */
  private async _ask<T>(
    route: string,
    options: RequestInit,
    query = ''
  ): Promise<T> {
    const url =
      URLExt.join(this._settings.baseUrl, 'llf', 'api', route) + query;
    let response: Response;
    try {
      response = await ServerConnection.makeRequest(
        url,
        options,
        this._settings
      );
    } catch {
      throw new ApiError(0, 'The Jupyter server does not answer.');
    }
    if (!response.ok) {
      const said = await response.json().catch(() => ({}));
      throw new ApiError(response.status, said.message ?? response.statusText);
    }
    return (await response.json()) as T;
  }
}
