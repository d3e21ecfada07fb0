// The data source of a monitor: the Jupyter server, which works without a kernel, or else the kernel.

import { uniqueId } from '../shared/dom.js';
import { onKernelLost } from '../shared/kernel.js';
import { requestServer, jupyterServer } from '../shared/server.js';

/** @import { Model } from '../shared/model' */
/** @import { Page } from '../shared/page_cell.js' */
/** @typedef {ReturnType<typeof runFeed>} Feed */

const SECTIONS = [
  'head',
  'charts',
  'answers',
  'completions',
  'trained',
  'events',
  'log'
];
const LIVE_INTERVAL = 500; // ms between two requests to the server for a live run
const ENDED_INTERVAL = 4000; // for an ended run, which another view may resume
const RETRY_INTERVAL = 2000; // after a failed request
const UNKNOWN_RUN_INTERVAL = 20000; // after the server has replied that it has no such run
const SERVER_MAX_AGE_MS = 5000; // ms for which the server's last response takes precedence over the kernel
const SLOW_KERNEL_MS = 3000; // ms after which a request is said to wait in the kernel
const TIMEOUT_MS = 12000; // ms without a response after which a source is lost (the kernel sends a heartbeat every 2 s)

/**
 * Keeps the sections of a run's monitor up to date until it is closed, and notifies listeners of each change. Views read
 * sections with `get` and need not know whether the server or the kernel sent them.
 * @param {{run: string, home: string, model?: Model, page?: Page}} source `model` is the kernel's widget, if there is one
 */
export function runFeed({ run, home, model, page }) {
  /** @type {Record<string, any>} */
  const sections = {};
  /** @type {Record<string, string>} */
  let revisions = {};
  /** @type {Map<string, Set<() => void>>} */
  const listeners = new Map();
  /** @type {Map<string, {resolve: (answer: {ok: boolean, text: string}) => void, timeout: ReturnType<typeof setTimeout>}>} */
  const pending = new Map(); // requests that the kernel has not answered, by key
  let options = { details: false, window: 0, narrow: false, older: 0 };
  let runClock = { time: 0, at: 0 }; // time of the run's machine, and of this page at the same moment
  let serverAnsweredAt = -Infinity; // when the server last sent data of this run
  let kernelSeenAt = -Infinity; // when the kernel last sent anything
  let unknownRun = false; // whether the server does not have the run
  let failure = ''; // why the last request to the server failed, as a sentence
  let closed = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;

  const notify = (/** @type {string} */ name) => {
    for (const listener of listeners.get(name) ?? []) {
      listener();
    }
  };
  const usesServer = () =>
    performance.now() - serverAnsweredAt < SERVER_MAX_AGE_MS;

  function update(/** @type {string} */ name, /** @type {any} */ value) {
    sections[name] = value;
    notify(name);
  }

  // -- the server --------------------------------------------------------------------------------------
  async function poll() {
    clearTimeout(timer);
    const sent = JSON.stringify(options);
    const query = new URLSearchParams({
      details: options.details ? '1' : '0',
      window: String(options.window),
      narrow: options.narrow ? '1' : '0',
      older: String(options.older),
      revisions: JSON.stringify(revisions)
    });
    const { status, answer } = await requestServer(
      `runs/${encodeURIComponent(run)}/monitor?${query}`
    );
    if (closed) {
      return;
    }
    const isOurs = status === 200 && (!home || answer.home === home);
    unknownRun = !isOurs && (status === 200 || status === 404);
    failure = isOurs
      ? ''
      : status === 200
        ? 'The Jupyter server uses another LLF_HOME.'
        : answer.message;
    if (isOurs) {
      serverAnsweredAt = performance.now();
      runClock = { time: answer.now, at: Date.now() };
      setUsesServer(true);
      revisions = answer.revisions;
      for (const [name, section] of Object.entries(answer.sections)) {
        update(name, section);
      }
    } else if (!usesServer()) {
      revisions = {}; // the kernel's sections replace the server's, so its revisions no longer apply
      setUsesServer(false);
      if (kernelSeenAt > serverAnsweredAt) {
        readKernel(); // else the server's last data is newer
      }
    }
    notify('source');
    const interval = unknownRun
      ? UNKNOWN_RUN_INTERVAL
      : !isOurs
        ? RETRY_INTERVAL
        : sections.head?.live
          ? LIVE_INTERVAL
          : ENDED_INTERVAL;
    timer = setTimeout(
      pollIfVisible,
      sent === JSON.stringify(options) ? interval : 0
    );
  }

  /** Polls if the page is visible; a page in the background polls once it becomes visible. */
  function pollIfVisible() {
    if (!closed && !document.hidden) {
      void poll();
    }
  }

  function setUsesServer(/** @type {boolean} */ on) {
    if (!model || model.get('uses_server') === on) {
      return;
    }
    model.set('uses_server', on);
    model.save_changes();
  }

  // -- the kernel --------------------------------------------------------------------------------------
  function readKernel() {
    if (!model) {
      return;
    }
    for (const name of SECTIONS) {
      if (sections[name] !== model.get(name)) {
        update(name, model.get(name));
      }
    }
    runClock = {
      time: Math.max(model.get('kernel_heartbeat'), model.get('head').now ?? 0),
      at: Date.now() - (performance.now() - kernelSeenAt)
    };
  }

  /** @type {[string, (...values: any[]) => void][]} */
  const kernelListeners = !model
    ? []
    : [
        ...SECTIONS.map(
          name =>
            /** @type {[string, () => void]} */ ([
              `change:${name}`,
              () => {
                kernelSeenAt = performance.now();
                if (usesServer()) {
                  return;
                }
                update(name, model.get(name));
                if (name === 'head') {
                  runClock = { time: model.get('head').now, at: Date.now() };
                }
              }
            ])
        ),
        [
          'change:kernel_heartbeat',
          () => {
            kernelSeenAt = performance.now();
            if (!usesServer()) {
              runClock = {
                time: model.get('kernel_heartbeat'),
                at: Date.now()
              };
            }
            notify('source');
          }
        ],
        ['change:error', () => notify('error')],
        ['change:server_mismatch', () => notify('server_mismatch')],
        ['msg:custom', receiveReply]
      ];
  for (const [event, listener] of kernelListeners) {
    model?.on(event, listener);
  }

  /**
   * Sends a request to the kernel and waits for its reply.
   * @param {string} type
   * @param {object} args
   * @param {() => void} onSlow called if there is no reply soon
   * @returns {Promise<{ok: boolean, text: string}>}
   */
  function requestKernel(type, args, onSlow) {
    const key = uniqueId(type);
    return new Promise(resolve => {
      const timeout = setTimeout(onSlow, SLOW_KERNEL_MS);
      pending.set(key, { resolve, timeout });
      model?.send({ type, args, key });
    });
  }

  function receiveReply(
    /** @type {{key?: string, ok: boolean, text: string}} */ {
      key = '',
      ok,
      text
    }
  ) {
    const request = pending.get(key);
    clearTimeout(request?.timeout);
    pending.delete(key);
    request?.resolve({ ok, text });
  }

  // -- start -------------------------------------------------------------------------------------------
  const onVisible = () => {
    if (!document.hidden) {
      pollIfVisible();
    }
  };
  document.addEventListener('visibilitychange', onVisible);
  window.addEventListener('focus', onVisible);
  if (model) {
    kernelSeenAt = performance.now();
  }
  readKernel();
  // a kernel that was restarted or shut down is missed at once, not after its heartbeat is overdue
  const ignoreKernelLoss = model
    ? onKernelLost(model, () => {
        kernelSeenAt = -Infinity;
        notify('source');
      })
    : () => undefined;
  if (jupyterServer()) {
    void poll();
  } else {
    setUsesServer(false);
  }

  return {
    run,
    page,
    hasKernel: Boolean(model),
    get: (/** @type {string} */ name) => sections[name] ?? model?.get(name),
    /** Returns the time of the run's machine in Unix seconds. */
    now: () => runClock.time + (Date.now() - runClock.at) / 1000,
    options: () => options,
    failure: () => failure,
    /** @returns {'server' | 'kernel' | ''} the source of the sections; empty if neither responds */
    source: () =>
      usesServer() || performance.now() - serverAnsweredAt < TIMEOUT_MS
        ? 'server'
        : model && performance.now() - kernelSeenAt < TIMEOUT_MS
          ? 'kernel'
          : '',
    setOptions(/** @type {object} */ changes) {
      options = { ...options, ...changes };
      if (model) {
        model.set('options', options);
        model.save_changes();
      }
      if (jupyterServer()) {
        void poll();
      }
    },
    /** Requests an update now. */
    refresh() {
      pollIfVisible();
      if (model && !usesServer()) {
        model.send({ type: 'refresh' });
      }
    },
    requestKernel,
    /** Sends the server's version to the kernel, which warns if the server reads another folder. */
    async compareWithServer() {
      const { status, answer } = await requestServer('version');
      if (status === 200 && !closed && model) {
        model.send({ type: 'compare_server', args: answer });
      }
    },
    on(/** @type {string} */ name, /** @type {() => void} */ listener) {
      listeners.set(name, (listeners.get(name) ?? new Set()).add(listener));
    },
    close() {
      closed = true;
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', onVisible);
      window.removeEventListener('focus', onVisible);
      ignoreKernelLoss();
      for (const [event, listener] of kernelListeners) {
        model?.off(event, listener);
      }
      for (const { timeout } of pending.values()) {
        clearTimeout(timeout);
      }
      listeners.clear();
    }
  };
}
