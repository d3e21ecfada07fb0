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
}

/** One page of runs, newest first. */
export interface IRunPage {
  total: number;
  runs: IRun[];
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
  runs(limit: number): Promise<IRunPage>;
}

/** The routes of `llf_widgets.server`, under the server's base URL. */
export class Api implements IApi {
  constructor(private _settings: ServerConnection.ISettings) {}

  version(): Promise<IVersion> {
    return this._get<IVersion>('version');
  }

  runs(limit: number): Promise<IRunPage> {
    return this._get<IRunPage>('runs', { offset: '0', limit: `${limit}` });
  }

  /**
   * @throws {ApiError} where the answer is not 2xx, or no answer came.
   */
  private async _get<T>(
    route: string,
    query: Record<string, string> = {}
  ): Promise<T> {
    const url =
      URLExt.join(this._settings.baseUrl, 'llf', 'api', route) +
      URLExt.objectToQueryString(query);
    let response: Response;
    try {
      response = await ServerConnection.makeRequest(url, {}, this._settings);
    } catch (error) {
      throw new ApiError(
        0,
        error instanceof Error ? error.message : `${error}`
      );
    }
    if (!response.ok) {
      throw new ApiError(response.status, response.statusText);
    }
    return (await response.json()) as T;
  }
}
