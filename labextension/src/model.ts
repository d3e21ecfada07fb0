import type { IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';
import { type ISignal, Signal } from '@lumino/signaling';

import { ApiError, type IApi, type IRun, type IVersion } from './api';

/** How many runs a page adds. */
export const PAGE = 50;

/** The most that the server hands out at once. */
export const LIMIT = 200;

/**
 * What the panel can say:
 * `loading` nothing is known yet · `ready` the list is current ·
 * `missing` the server has no LLF · `unreachable` no answer, the list is the last one known.
 */
export type Health = 'loading' | 'ready' | 'missing' | 'unreachable';

export interface IModelOptions {
  api: IApi;
  pageVersion: string;
  /** Whether anyone can see the list; without, nothing is asked. */
  isVisible: () => boolean;
  /** Milliseconds between two questions. */
  interval?: number;
}

/** The runs, as the server last told; polled while the panel is on screen. */
export class RunsModel implements IDisposable {
  constructor(options: IModelOptions) {
    this._api = options.api;
    this.pageVersion = options.pageVersion;
    this._poll = new Poll({
      name: 'llf:runs',
      auto: false,
      factory: () => this._fetch(),
      frequency: {
        interval: options.interval ?? 3000,
        backoff: true,
        max: 60_000
      },
      standby: () => (options.isVisible() ? 'when-hidden' : true)
    });
  }

  /** Version of the code in the page. */
  readonly pageVersion: string;

  health: Health = 'loading';
  version: IVersion | null = null;
  runs: readonly IRun[] = [];
  total = 0;

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get isDisposed(): boolean {
    return this._poll.isDisposed;
  }

  /** Whether page and server are of different versions. */
  get mismatch(): boolean {
    return this.version !== null && this.version.llf !== this.pageVersion;
  }

  /** Whether the server has runs that are not in the list, and would hand them out. */
  get hasMore(): boolean {
    return this.runs.length < this.total && this._limit < LIMIT;
  }

  async start(): Promise<void> {
    await this._poll.start();
  }

  /** Asks now, whatever the back-off says. */
  async refresh(): Promise<void> {
    await this._poll.refresh();
  }

  async showMore(): Promise<void> {
    this._limit = Math.min(this._limit + PAGE, LIMIT);
    await this.refresh();
  }

  dispose(): void {
    if (!this.isDisposed) {
      this._poll.dispose();
      Signal.clearData(this);
    }
  }

  private async _fetch(): Promise<void> {
    try {
      // After a silence the server may be another one.
      if (this.health !== 'ready' || this.version === null) {
        this.version = await this._api.version();
      }
      const page = await this._api.runs(this._limit);
      this.runs = page.runs;
      this.total = page.total;
      this.health = 'ready';
    } catch (error) {
      const missing = error instanceof ApiError && error.status === 404;
      this.health = missing ? 'missing' : 'unreachable';
      throw error; // so that the poll backs off
    } finally {
      if (!this.isDisposed) {
        this._changed.emit();
      }
    }
  }

  private _api: IApi;
  private _changed = new Signal<this, void>(this);
  private _limit = PAGE;
  private _poll: Poll;
}
