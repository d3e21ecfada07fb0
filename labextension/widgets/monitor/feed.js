// Where a monitor's sections come from: the Jupyter server, which needs no kernel, else the kernel.

import { requestServer, jupyterServer } from '../shared/server.js';

/** @import { Model } from '../shared/model' */
/** @typedef {ReturnType<typeof runFeed>} Feed */

const SECTIONS = ['head', 'charts', 'answers', 'completions', 'events', 'log'];
const LIVE_INTERVAL = 500; // ms between two questions to the server about a live run
const ENDED_INTERVAL = 4000; // about one that has ended: another view may resume it
const RETRY_INTERVAL = 2000; // after a question that failed
const UNKNOWN_RUN_INTERVAL = 20000; // after the server reply that it has no such run
const SERVER_FRESH_MS = 5000; // ms for which the server's last answer counts more than what the kernel sends
const TIMEOUT_MS = 12000; // ms without a sign after which a source counts as lost (the kernel beats every 2 s)

/**
 * @typedef {object} Host what the page around the view can do
 * @property {(code: string) => Promise<unknown>} [runCell] runs code in a cell that the reader sees
 */

/**
 * The sections of a run's monitor, brought up to date as long as it is not closed.
 * @param {{run: string, home: string, model?: Model, host?: Host}} source `model` is the kernel's widget, where there is one
 */
export function runFeed({ run, home, model, host }) {
  /** @type {Record<string, any>} */
  const sections = {};
  /** @type {Record<string, string>} */
  let revisions = {};
  /** @type {Map<string, Set<() => void>>} */
  const listeners = new Map();
  /** @type {Map<string, (answer: {ok: boolean, text: string}) => void>} */
  const pending = new Map();
  let options = { details: false, window: 0, narrow: false, older: 0 };
  let clock = { time: 0, at: 0 }; // the run's clock at a moment of this page's
  let serverAnsweredAt = -Infinity; // when the server last answered for this run
  let kernelSeenAt = -Infinity; // when the kernel last gave a sign
  let unknownRun = false; // whether the server has no such run
  let failure = ''; // why the server's last answer was none
  let closed = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;

  const notify = (/** @type {string} */ name) => {
    for (const listener of listeners.get(name) ?? []) {
      listener();
    }
  };
  const usesServer = () =>
    performance.now() - serverAnsweredAt < SERVER_FRESH_MS;

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
    const ours = status === 200 && (!home || answer.home === home);
    unknownRun = !ours && (status === 200 || status === 404);
    failure = ours
      ? ''
      : status === 200
        ? 'it uses another LLF_HOME'
        : (answer.message ?? `HTTP ${status}`);
    if (ours) {
      serverAnsweredAt = performance.now();
      clock = { time: answer.now, at: Date.now() };
      setUsesServer(true);
      revisions = answer.revisions;
      for (const [name, section] of Object.entries(answer.sections)) {
        update(name, section);
      }
    } else if (!usesServer()) {
      revisions = {}; // what the kernel shows meanwhile is another state than the server's revisions tell of
      setUsesServer(false);
      readKernel();
    }
    notify('source');
    const wait = unknownRun
      ? UNKNOWN_RUN_INTERVAL
      : !ours
        ? RETRY_INTERVAL
        : sections.head?.live
          ? LIVE_INTERVAL
          : ENDED_INTERVAL;
    timer = setTimeout(
      pollIfVisible,
      sent === JSON.stringify(options) ? wait : 0
    );
  }

  /** A page in the background waits until it is looked at. */
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
    clock = {
      time: Math.max(model.get('kernel_heartbeat'), model.get('head').now ?? 0),
      at: Date.now()
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
                  clock = { time: model.get('head').now, at: Date.now() };
                }
              }
            ])
        ),
        [
          'change:kernel_heartbeat',
          () => {
            kernelSeenAt = performance.now();
            if (!usesServer()) {
              clock = { time: model.get('kernel_heartbeat'), at: Date.now() };
            }
            notify('source');
          }
        ],
        ['change:error', () => notify('error')],
        ['change:server_mismatch', () => notify('server_mismatch')],
        [
          'comm_live_update',
          () => {
            // the manager revisions a view whose kernel was restarted or shut down
            if (model?.comm_live === false) {
              kernelSeenAt = -Infinity;
            }
            notify('source');
          }
        ],
        ['msg:custom', reply => pending.get(reply?.key)?.(reply)]
      ];
  for (const [event, listener] of kernelListeners) {
    model?.on(event, listener);
  }

  /**
   * Asks the kernel to do something.
   * @param {string} what
   * @param {object} args
   * @param {() => void} slow called where no answer came within 3 s
   * @returns {Promise<{ok: boolean, text: string}>}
   */
  function requestKernel(what, args, slow) {
    const key = crypto.randomUUID?.() ?? String(Math.random());
    return new Promise(resolve => {
      const timeout = setTimeout(slow, 3000);
      pending.set(key, reply => {
        clearTimeout(timeout);
        pending.delete(key);
        resolve({ ok: reply.ok, text: reply.text });
      });
      model?.send({ type: what, args, key });
    });
  }

  // -- from here on ------------------------------------------------------------------------------------
  const onVisible = () => {
    if (!document.hidden) {
      pollIfVisible();
    }
  };
  document.addEventListener('visibilitychange', onVisible);
  window.addEventListener('focus', onVisible);
  readKernel();
  if (model && model.comm_live !== false) {
    kernelSeenAt = performance.now();
  }
  if (jupyterServer()) {
    void poll();
  } else {
    setUsesServer(false);
  }

  return {
    run,
    host,
    hasKernel: Boolean(model),
    get: (/** @type {string} */ name) => sections[name] ?? model?.get(name),
    /** The run's own clock, Unix seconds. */
    now: () => clock.time + (Date.now() - clock.at) / 1000,
    options: () => options,
    failure: () => failure,
    /** @returns {'server' | 'kernel' | ''} who gives the sections; nobody where both are silent */
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
    /** Looks at once. */
    refresh() {
      pollIfVisible();
      if (model && !usesServer()) {
        model.send({ type: 'refresh' });
      }
    },
    requestKernel,
    /** Has the kernel compare itself with the server, whose panel may list the runs of another folder. */
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
      for (const [event, listener] of kernelListeners) {
        model?.off(event, listener);
      }
      listeners.clear();
    }
  };
}
