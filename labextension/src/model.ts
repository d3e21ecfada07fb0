import type { IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';
import { type ISignal, Signal } from '@lumino/signaling';

import {
  ApiError,
  type IAdapter,
  type IApi,
  type IBinPage,
  type IDetails,
  type IHost,
  type IIndexProgress,
  type IRun,
  type IRunPage,
  type ISortMetric,
  type IVersion,
  type RunState
} from './api';
import { errorSentence } from './error_sentences';
import { displayName } from './format';

/** How many more runs *Show 50 more* lists. */
export const PAGE_SIZE = 50;

/** Maximum number of runs in one response of the server. */
export const MAX_RUNS = 200;

/** Maximum number of adapters in the list. */
export const MAX_ADAPTERS = 20;

/** Adapters and bin change rarely, so only every fifth poll requests them. */
const SLOW_POLL_EVERY = 5;

/**
 * Result of the last poll: `loading` before the first response, `ready` if the list is current, `missing` if the server
 * has no LLF, `unreachable` if the server fails or does not answer and the list may be out of date.
 */
export type ServerStatus = 'loading' | 'ready' | 'missing' | 'unreachable';

/** Key that groups the list; empty for no grouping. */
export type Grouping = '' | 'dataset' | 'model';

/** Search, state filter, order and grouping of the list. */
export interface IFilter {
  query: string;
  state: RunState | '';
  sort: string;
  group: Grouping;
}

/** The filter that lists all runs, newest first. */
export const DEFAULT_FILTER: IFilter = {
  query: '',
  state: '',
  sort: 'newest',
  group: ''
};

/** Beginning of an order by a metric of evaluations, such as `metric:eval_rougeL`. */
export const BY_METRIC = 'metric:';

/** Where the order of the list is kept over a reload of the page. */
const SORT_KEY = 'llf:runs-sort';

/** Orders that a page may have kept; one of an earlier version is forgotten. */
const KNOWN_SORT =
  /^(newest|oldest|loss|name|state|metric:eval_[^\p{Cc}]{1,200})$/u;

/** States of runs that have not ended. */
export const LIVE_STATES: readonly RunState[] = [
  'queued',
  'created',
  'starting',
  'running',
  'stopping'
];

/** States of runs that a resume continues. */
export const RESUMABLE_STATES: readonly RunState[] = [
  'stopped',
  'failed',
  'lost'
];

/** Whether a run may have a model to chat with, to evaluate and to export: none that ended before its first checkpoint. */
export function mayHaveModel(run: IRun): boolean {
  return (
    !['queued', 'created'].includes(run.state) &&
    (run.weights !== false || LIVE_STATES.includes(run.state))
  );
}

/** A run that has just ended; `succeeded` is false if it failed, was stopped or was lost. */
export interface IRunEnded {
  run: IRun;
  succeeded: boolean;
}

/** What a `RunsModel` needs. */
export interface IRunsModelOptions {
  api: IApi;
  pageVersion: string;
  /** Whether the panel is visible; the model polls only then. */
  isVisible: () => boolean;
  /** Milliseconds between two polls. */
  interval?: number;
  /** Keeps the order of the list; without it, each page begins with the newest runs. */
  storage?: Pick<Storage, 'getItem' | 'setItem'> | null;
}

/**
 * State of the panel: the runs as of the last poll, the selection, the filter and what is shown. It polls the server
 * while the panel is visible, and emits `changed` after each change. It draws nothing, so tests need no page.
 */
export class RunsModel implements IDisposable {
  constructor(options: IRunsModelOptions) {
    this.api = options.api;
    this.pageVersion = options.pageVersion;
    this._storage = options.storage ?? null;
    const sort = this._storage?.getItem(SORT_KEY) ?? '';
    if (KNOWN_SORT.test(sort)) {
      this._filter = { ...DEFAULT_FILTER, sort };
    }
    this._poll = new Poll({
      name: 'llf:runs',
      auto: false,
      factory: () => this._refresh(),
      frequency: {
        interval: options.interval ?? 3000,
        backoff: true,
        max: 15_000 // so that a restarted server is found soon
      },
      standby: () => (options.isVisible() ? 'when-hidden' : true)
    });
  }

  readonly api: IApi;

  /** Version of the extension in the page; it may differ from the server's after an upgrade. */
  readonly pageVersion: string;

  /** Result of the last poll. */
  serverStatus: ServerStatus = 'loading';

  /** Why the last poll failed, as a sentence; empty if it did not. */
  serverError = '';

  version: IVersion | null = null;
  runs: readonly IRun[] = [];
  total = 0;

  /** The metrics of evaluations that the list can be sorted by. */
  sortMetrics: readonly ISortMetric[] = [];

  /** Progress of the server's index; while it is not null, the list may lack runs. */
  indexProgress: IIndexProgress | null = null;
  adapters: readonly IAdapter[] = [];
  adaptersTotal = 0;

  /** Other hosts whose runs were opened from this machine. */
  hosts: readonly IHost[] = [];

  /** The run whose details replace the list; null if the list is shown. */
  details: IDetails | null = null;

  /** Outcome of the last action, for the status line of the panel. */
  statusMessage = '';

  /** Number of runs in the bin. */
  binTotal = 0;

  /** Runs in the bin, while they replace the list; null otherwise. */
  bin: IBinPage | null = null;

  /** Emitted after each change of the state, so that the panel is drawn again. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Emitted when a run ends that was live at the previous poll. */
  get runEnded(): ISignal<this, IRunEnded> {
    return this._runEnded;
  }

  get isDisposed(): boolean {
    return this._poll.isDisposed;
  }

  /** The host whose runs are listed; empty for this machine. */
  get host(): string {
    return this.api.host;
  }

  /** The current filter; `setFilter` changes it. */
  get filter(): IFilter {
    return this._filter;
  }

  /** The metric of evaluations that the list is sorted by; null for another order, or if no run has it. */
  get sortMetric(): ISortMetric | null {
    const { sort } = this._filter;
    return (
      this.sortMetrics.find(metric => BY_METRIC + metric.name === sort) ?? null
    );
  }

  /** Whether a search or a state filter is set, so that an empty list does not mean that there are no runs. */
  get isFiltered(): boolean {
    return this._filter.query !== '' || this._filter.state !== '';
  }

  /** Whether the page and the server have different versions of LLF. */
  get versionMismatch(): boolean {
    return this.version !== null && this.version.llf !== this.pageVersion;
  }

  /** Whether `showMore` would list more runs. */
  get hasMore(): boolean {
    return this.runs.length < this.total && this._limit < MAX_RUNS;
  }

  /** The runs that a command acts on: the run whose details are shown, otherwise the selected runs of the list. */
  get selectedRuns(): readonly IRun[] {
    if (this.details) {
      return this.details.row ? [this.details.row] : [];
    }
    return this.runs.filter(run => this._selection.has(run.id));
  }

  /** Whether a run is selected. */
  isSelected(id: string): boolean {
    return this._selection.has(id);
  }

  /** Whether a run was asked to resume, and has not begun to. */
  isResuming({ id, state }: Pick<IRun, 'id' | 'state'>): boolean {
    return this._resuming.has(id) && RESUMABLE_STATES.includes(state);
  }

  /** Shows a run as resuming, with a message, from now on until its state has changed or `resume` has failed. */
  async whileResuming(
    id: string,
    message: string,
    resume: () => Promise<unknown>
  ): Promise<void> {
    this._resuming.add(id);
    this.setStatusMessage(message);
    try {
      await resume();
      await this.refresh();
      await this._poll.tick.catch(() => undefined); // the new state
    } finally {
      this._resuming.delete(id);
      this.setStatusMessage(
        this.statusMessage === message ? '' : this.statusMessage
      );
    }
  }

  /** Replaces the text of the status line. */
  setStatusMessage(message: string): void {
    this.statusMessage = message;
    this._changed.emit();
  }

  /** Replaces the selection. */
  select(...ids: string[]): void {
    this._selection = new Set(ids);
    this.setStatusMessage('');
  }

  /** Adds a run to the selection, or removes it. */
  toggle(id: string): void {
    this.statusMessage = '';
    if (!this._selection.delete(id)) {
      this._selection.add(id);
    }
    this._changed.emit();
  }

  /** Starts polling. */
  async start(): Promise<void> {
    await this._poll.start();
  }

  /** Polls now, without waiting for the interval or the back-off. */
  async refresh(): Promise<void> {
    await this._poll.refresh();
  }

  /** Lists `PAGE_SIZE` more runs. */
  async showMore(): Promise<void> {
    this._limit = Math.min(this._limit + PAGE_SIZE, MAX_RUNS);
    await this.refresh();
  }

  /** Changes search, filter, order or grouping, and lists the first page. */
  async setFilter(change: Partial<IFilter>): Promise<void> {
    this._filter = { ...this._filter, ...change };
    if (change.sort !== undefined) {
      try {
        this._storage?.setItem(SORT_KEY, change.sort);
      } catch {
        // a full or closed storage: the order holds for this page
      }
    }
    this._limit = PAGE_SIZE;
    this.setStatusMessage('');
    await this.refresh();
  }

  /** Lists the runs of another host, or of this machine. */
  async setHost(host: string): Promise<void> {
    this.api.host = host;
    this.runs = this.adapters = [];
    this.total = this.adaptersTotal = 0;
    this.details = this.bin = this._detailsId = this.indexProgress = null;
    this.serverStatus = 'loading';
    this.serverError = '';
    this._selection = new Set();
    this._filter = { ...this._filter, query: '', state: '' };
    this._limit = PAGE_SIZE;
    this._pollCount = 0;
    this.setStatusMessage('');
    await this.refresh();
  }

  /** How a cell of a notebook names a run: its id, or its address if it is of another host. */
  nameOf({ id }: Pick<IRun, 'id'>): string {
    return this.host ? `ssh://${this.host}/${id}` : id;
  }

  /** Shows the details of a run; null shows the list. */
  async openDetails(id: string | null): Promise<void> {
    this._detailsId = id;
    if (id === null) {
      this.details = null;
      this.setStatusMessage('');
      return;
    }
    this.setStatusMessage('');
    await this._refreshDetails(id);
  }

  /** Shows the bin, or the list. */
  async showBin(visible: boolean): Promise<void> {
    this._detailsId = this.details = null;
    this.bin = visible ? { total: this.binTotal, runs: [] } : null;
    this.setStatusMessage('');
    if (visible) {
      await this._refreshBin();
      this._changed.emit();
    }
  }

  /**
   * Runs an action for each of several runs and shows one summary. If the server refuses one run, the others are still
   * processed.
   *
   * @param describe - returns the sentence about the runs that succeeded
   * @returns the runs that succeeded
   */
  async runForEach<T extends Pick<IRun, 'id' | 'name'>>(
    runs: readonly T[],
    action: (run: T) => Promise<unknown>,
    describe: (succeeded: readonly T[]) => string
  ): Promise<T[]> {
    const succeeded: T[] = [];
    await this.runAction(async () => {
      const errors: string[] = [];
      for (const run of runs) {
        try {
          await action(run);
          succeeded.push(run);
        } catch (error) {
          if (error instanceof ApiError && error.status === 0) {
            errors.push(error.message);
            break; // it will not answer for the others either
          }
          const message = errorSentence(error);
          errors.push(
            runs.length > 1 ? `${displayName(run)}: ${message}` : message
          );
        }
      }
      return [
        ...(succeeded.length ? [describe(succeeded)] : []),
        ...errors
      ].join(' ');
    });
    return succeeded;
  }

  /** Runs an action, shows the message that it returns or its error, and polls. Returns whether the action succeeded. */
  async runAction(action: () => Promise<string>): Promise<boolean> {
    let succeeded = true;
    try {
      this.statusMessage = await action();
    } catch (error) {
      this.statusMessage = errorSentence(error);
      succeeded = false;
    }
    this._changed.emit();
    this._pollCount = 0; // the action may have changed the adapters and the bin
    await this.refresh();
    return succeeded;
  }

  /** Shows why an action failed, and polls, because the list may be out of date. */
  async showError(error: unknown): Promise<void> {
    this.setStatusMessage(errorSentence(error));
    await this.refresh();
  }

  dispose(): void {
    if (!this.isDisposed) {
      this._poll.dispose();
      Signal.clearData(this);
    }
  }

  private async _refresh(): Promise<void> {
    try {
      // A server that was unreachable may have been restarted with another version.
      if (this.serverStatus !== 'ready') {
        this.version = null;
      }
      this.version ??= await this.api.version();
      const page = await this._fetchPage();
      await this._notifyEnded(page.runs);
      this.runs = page.runs;
      this.total = page.total;
      this.sortMetrics = page.metrics ?? [];
      this.indexProgress = page.reading ?? null;
      this.serverStatus = 'ready';
      this.serverError = '';
      const slowPoll = this._pollCount++ % SLOW_POLL_EVERY === 0;
      if (slowPoll) {
        await this._refreshHosts();
      }
      if (slowPoll && !this.host) {
        await this._refreshAdapters();
      }
      if (slowPoll || this.bin) {
        await this._refreshBin();
      }
      if (this._detailsId !== null) {
        await this._refreshDetails(this._detailsId);
      }
    } catch (error) {
      const missing =
        error instanceof ApiError &&
        error.status === 404 &&
        this.version === null;
      this.serverStatus = missing ? 'missing' : 'unreachable';
      this.serverError = errorSentence(error);
      throw error; // makes the poll back off
    } finally {
      if (!this.isDisposed) {
        this._changed.emit();
      }
    }
  }

  /** Requests the runs, and requests them again if the filter changed before the response arrived. */
  private async _fetchPage(): Promise<IRunPage> {
    for (;;) {
      const { _filter: filter, _limit: limit, host } = this;
      const page = await this.api.listRuns({ ...filter, limit });
      if (
        filter === this._filter &&
        limit === this._limit &&
        host === this.host
      ) {
        return page;
      }
    }
  }

  private async _refreshAdapters(): Promise<void> {
    const page = await this._fetchOptional(
      this.api.listAdapters(MAX_ADAPTERS),
      {
        total: 0,
        adapters: []
      }
    );
    if (page) {
      this.adapters = page.adapters;
      this.adaptersTotal = page.total;
    }
  }

  private async _refreshHosts(): Promise<void> {
    const page = await this._fetchOptional(this.api.listHosts(), { hosts: [] });
    this.hosts = page?.hosts ?? this.hosts;
  }

  private async _refreshBin(): Promise<void> {
    const page = await this._fetchOptional(
      this.api.listBin(this.bin ? MAX_RUNS : 1),
      { total: 0, runs: [] }
    );
    if (page) {
      this.binTotal = page.total;
      this.bin &&= page;
    }
  }

  /**
   * Waits for a page whose route older servers lack; the list works without it.
   *
   * @returns `empty` if the server lacks the route; null if it refuses the request, so that what is known stays
   * @throws {ApiError} if the server does not answer
   */
  private async _fetchOptional<Page>(
    request: Promise<Page>,
    empty: Page
  ): Promise<Page | null> {
    try {
      return await request;
    } catch (error) {
      if (!(error instanceof ApiError) || error.status === 0) {
        throw error;
      }
      return error.status === 404 ? empty : null;
    }
  }

  private async _refreshDetails(id: string): Promise<void> {
    try {
      const details = await this.api.runDetails(id);
      if (this._detailsId === id) {
        this.details = details;
      }
    } catch (error) {
      const noResponse = error instanceof ApiError && error.status === 0;
      if (noResponse && this.details?.id === id) {
        throw error; // keep the details of the last poll
      }
      // The run was deleted or its files cannot be read: go back to the list.
      this._detailsId = this.details = null;
      this.statusMessage = errorSentence(error);
    }
    this._changed.emit();
  }

  /** Emits `runEnded` for runs that have ended since the previous poll, including runs that the filter now excludes. */
  private async _notifyEnded(runs: readonly IRun[]): Promise<void> {
    const listed = new Map(runs.map(run => [run.id, run]));
    for (const before of this.runs.filter(run =>
      LIVE_STATES.includes(run.state)
    )) {
      const run = listed.get(before.id) ?? (await this._fetchRun(before.id));
      if (run && !LIVE_STATES.includes(run.state)) {
        this._pollCount = 0; // it may have saved an adapter
        this._runEnded.emit({ run, succeeded: run.state === 'finished' });
      }
    }
  }

  /** Returns a run that is not in the list; null if it no longer exists. */
  private async _fetchRun(id: string): Promise<IRun | null> {
    try {
      return (await this.api.runDetails(id)).row ?? null;
    } catch (error) {
      if (error instanceof ApiError && error.status === 0) {
        throw error;
      }
      return null;
    }
  }

  private _pollCount = 0;
  private _changed = new Signal<this, void>(this);
  private _runEnded = new Signal<this, IRunEnded>(this);
  private _filter: IFilter = DEFAULT_FILTER;
  private _storage: IRunsModelOptions['storage'];
  private _limit = PAGE_SIZE;
  private _detailsId: string | null = null;
  private _poll: Poll;
  private _selection = new Set<string>();
  private _resuming = new Set<string>();
}
