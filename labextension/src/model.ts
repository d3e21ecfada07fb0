import type { IDisposable } from '@lumino/disposable';
import { Poll } from '@lumino/polling';
import { type ISignal, Signal } from '@lumino/signaling';

import {
  ApiError,
  type IAdapter,
  type IApi,
  type IBinPage,
  type IDetails,
  type IReading,
  type IRun,
  type IRunPage,
  type IVersion,
  type RunState
} from './api';
import { called } from './format';

/** How many runs a page adds. */
export const PAGE = 50;

/** The most that the server hands out at once. */
export const LIMIT = 200;

/** How many adapters are shown. */
export const ADAPTERS = 20;

/** Questions between two looks at the adapters and the bin, which change seldom. */
const SELDOM = 5;

/**
 * What the panel can say:
 * `loading` nothing is known yet · `ready` the list is current ·
 * `missing` the server has no LLF · `unreachable` no answer, the list is the last one known.
 */
export type Health = 'loading' | 'ready' | 'missing' | 'unreachable';

/** By what the list is divided. */
export type Group = '' | 'dataset' | 'model';

/** What the list is narrowed and ordered by. */
export interface IFilter {
  query: string;
  state: RunState | '';
  sort: string;
  group: Group;
}

export const EVERYTHING: IFilter = {
  query: '',
  state: '',
  sort: 'newest',
  group: ''
};

/** States in which something of a run is going. */
export const LIVE: readonly RunState[] = [
  'created',
  'starting',
  'running',
  'stopping'
];

/** A run that has just ended, for a notification. */
export interface IEnded {
  run: IRun;
  well: boolean;
}

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
    this.api = options.api;
    this.pageVersion = options.pageVersion;
    this._poll = new Poll({
      name: 'llf:runs',
      auto: false,
      factory: () => this._fetch(),
      frequency: {
        interval: options.interval ?? 3000,
        backoff: true,
        max: 15_000 // a server that was restarted is soon seen
      },
      standby: () => (options.isVisible() ? 'when-hidden' : true)
    });
  }

  readonly api: IApi;

  /** Version of the code in the page. */
  readonly pageVersion: string;

  health: Health = 'loading';

  /** The server's own words where it refuses; empty where it says nothing at all. */
  refusal = '';

  version: IVersion | null = null;
  runs: readonly IRun[] = [];
  total = 0;

  /** How far the server is, while it has not looked at all runs: the list may lack some. */
  reading: IReading | null = null;
  adapters: readonly IAdapter[] = [];
  adaptersTotal = 0;

  /** The run whose details are shown instead of the list. */
  details: IDetails | null = null;

  /** What was last said about an action. */
  said = '';

  /** How many runs are in the bin. */
  binTotal = 0;

  /** What is in the bin, where that is shown instead of the list. */
  bin: IBinPage | null = null;

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** A run that this page saw going has ended. */
  get ended(): ISignal<this, IEnded> {
    return this._ended;
  }

  get isDisposed(): boolean {
    return this._poll.isDisposed;
  }

  get filter(): IFilter {
    return this._filter;
  }

  /** Whether the list is narrowed. */
  get isFiltered(): boolean {
    return this._filter.query !== '' || this._filter.state !== '';
  }

  /** Whether page and server are of different versions. */
  get mismatch(): boolean {
    return this.version !== null && this.version.llf !== this.pageVersion;
  }

  /** Whether the server has runs that are not in the list, and would hand them out. */
  get hasMore(): boolean {
    return this.runs.length < this.total && this._limit < LIMIT;
  }

  /** The runs that an action is for: the one whose details are shown, else those that were chosen, as listed. */
  get selected(): readonly IRun[] {
    if (this.details) {
      return this.details.row ? [this.details.row] : [];
    }
    return this.runs.filter(run => this._selection.has(run.id));
  }

  isSelected(id: string): boolean {
    return this._selection.has(id);
  }

  /** Says something in the panel's last line; what was said before is over. */
  say(words: string): void {
    this.said = words;
    this._changed.emit();
  }

  /** Chooses runs, in place of those that were chosen. */
  select(...ids: string[]): void {
    this._selection = new Set(ids);
    this.say('');
  }

  /** Adds a run to those that are chosen, or takes it out. */
  toggle(id: string): void {
    this.said = '';
    if (!this._selection.delete(id)) {
      this._selection.add(id);
    }
    this._changed.emit();
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

  /** Narrows or orders the list. */
  async narrow(change: Partial<IFilter>): Promise<void> {
    this._filter = { ...this._filter, ...change };
    this._limit = PAGE;
    this.say('');
    await this.refresh();
  }

  /** Shows a run's details; null shows the list again. */
  async open(id: string | null): Promise<void> {
    this._opened = id;
    if (id === null) {
      this.details = null;
      this.say('');
      return;
    }
    this.say('');
    await this._look(id);
  }

  /** Shows the bin, or the list again. */
  async openBin(open: boolean): Promise<void> {
    this._opened = this.details = null;
    this.bin = open ? { total: this.binTotal, runs: [] } : null;
    this.say('');
    if (open) {
      await this._lookAtBin();
      this._changed.emit();
    }
  }

  /**
   * Does something to each of several runs, and says what came of it once; a refusal keeps none of the others.
   *
   * @param said - the words for those it was done to
   * @returns those it was done to
   */
  async each<T extends Pick<IRun, 'id' | 'name'>>(
    runs: readonly T[],
    doing: (run: T) => Promise<unknown>,
    said: (done: readonly T[]) => string
  ): Promise<T[]> {
    const done: T[] = [];
    await this.act(async () => {
      const refusals: string[] = [];
      for (const run of runs) {
        try {
          await doing(run);
          done.push(run);
        } catch (error) {
          if (error instanceof ApiError && error.status === 0) {
            refusals.push(error.message);
            break; // nor will it answer for the others
          }
          const why = error instanceof Error ? error.message : `${error}`;
          refusals.push(runs.length > 1 ? `${called(run)}: ${why}` : why);
        }
      }
      return [...(done.length ? [said(done)] : []), ...refusals].join(' ');
    });
    return done;
  }

  /** Does something, says what came of it, and looks again. */
  async act(doing: () => Promise<string>): Promise<boolean> {
    let well = true;
    try {
      this.said = await doing();
    } catch (error) {
      this.said = error instanceof Error ? error.message : `${error}`;
      well = false;
    }
    this._changed.emit();
    this._asked = 0; // adapters and the bin may be others
    await this.refresh();
    return well;
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
      if (this.health !== 'ready') {
        this.version = null;
      }
      this.version ??= await this.api.version();
      const page = await this._page();
      await this._tellEnded(page.runs);
      this.runs = page.runs;
      this.total = page.total;
      this.reading = page.reading ?? null;
      this.health = 'ready';
      const seldom = this._asked++ % SELDOM === 0;
      if (seldom) {
        await this._lookAtAdapters();
      }
      if (seldom || this.bin) {
        await this._lookAtBin();
      }
      if (this._opened !== null) {
        await this._look(this._opened);
      }
    } catch (error) {
      const missing =
        error instanceof ApiError &&
        error.status === 404 &&
        this.version === null;
      this.health = missing ? 'missing' : 'unreachable';
      this.refusal =
        error instanceof ApiError && error.status !== 0 ? error.message : '';
      throw error; // so that the poll backs off
    } finally {
      if (!this.isDisposed) {
        this._changed.emit();
      }
    }
  }

  /** The page that is wanted, asked for again where the wish changed while the server thought. */
  private async _page(): Promise<IRunPage> {
    for (;;) {
      const { _filter: filter, _limit: limit } = this;
      const page = await this.api.runs({ ...filter, limit });
      if (filter === this._filter && limit === this._limit) {
        return page;
      }
    }
  }

  private async _lookAtAdapters(): Promise<void> {
    try {
      const found = await this.api.adapters(ADAPTERS);
      this.adapters = found.adapters;
      this.adaptersTotal = found.total;
    } catch (error) {
      if (!(error instanceof ApiError) || error.status === 0) {
        throw error;
      }
      this.adapters = []; // an older server; the runs are there all the same
    }
  }

  private async _lookAtBin(): Promise<void> {
    try {
      const page = await this.api.bin(this.bin ? LIMIT : 1);
      this.binTotal = page.total;
      this.bin &&= page;
    } catch (error) {
      if (!(error instanceof ApiError) || error.status === 0) {
        throw error;
      }
      this.binTotal = 0; // an older server
    }
  }

  private async _look(id: string): Promise<void> {
    try {
      const details = await this.api.details(id);
      if (this._opened === id) {
        this.details = details;
      }
    } catch (error) {
      const silent = error instanceof ApiError && error.status === 0;
      if (silent && this.details?.id === id) {
        throw error; // what is shown is the last that is known
      }
      // Deleted under the view, or its files cannot be read: the list is still there.
      this._opened = this.details = null;
      this.said = error instanceof Error ? error.message : `${error}`;
    }
    this._changed.emit();
  }

  /** Tells of runs that were going at the last look and have ended since, also where a filter leaves them out. */
  private async _tellEnded(runs: readonly IRun[]): Promise<void> {
    const now = new Map(runs.map(run => [run.id, run]));
    for (const before of this.runs.filter(run => LIVE.includes(run.state))) {
      const run = now.get(before.id) ?? (await this._other(before.id));
      if (run && !LIVE.includes(run.state)) {
        this._asked = 0; // it may have left an adapter
        this._ended.emit({ run, well: run.state === 'finished' });
      }
    }
  }

  /** A run that is not on the page; null where it is gone. */
  private async _other(id: string): Promise<IRun | null> {
    try {
      return (await this.api.details(id)).row ?? null;
    } catch (error) {
      if (error instanceof ApiError && error.status === 0) {
        throw error;
      }
      return null;
    }
  }

  private _asked = 0;
  private _changed = new Signal<this, void>(this);
  private _ended = new Signal<this, IEnded>(this);
  private _filter: IFilter = EVERYTHING;
  private _limit = PAGE;
  private _opened: string | null = null;
  private _poll: Poll;
  private _selection = new Set<string>();
}
