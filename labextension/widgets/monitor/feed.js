// Where a monitor's parts come from: the Jupyter server, which needs no kernel, else the kernel.

import { askServer, jupyterServer } from '../shared/server.js';

/** @import { Model } from '../shared/model' */
/** @typedef {ReturnType<typeof runFeed>} Feed */

const PARTS = ['head', 'charts', 'answers', 'samples', 'events', 'log'];
const LIVE_EVERY = 500; // ms between two questions to the server about a live run
const ENDED_EVERY = 4000; // about one that has ended: another view may resume it
const RETRY_EVERY = 2000; // after a question that failed
const REFUSED_EVERY = 20000; // after the server said that it has no such run
const FRESH = 5000; // ms for which the server's last answer counts more than what the kernel sends
const QUIET_AFTER = 12000; // ms without a sign after which a source counts as lost (the kernel beats every 2 s)

/**
 * @typedef {object} Host what the page around the view can do
 * @property {(code: string) => Promise<unknown>} [runCell] runs code in a cell that the reader sees
 */

/**
 * The parts of a run's monitor, brought up to date as long as it is not closed.
 * @param {{run: string, home: string, model?: Model, host?: Host}} source `model` is the kernel's widget, where there is one
 */
export function runFeed({ run, home, model, host }) {
  /** @type {Record<string, any>} */
  const parts = {};
  /** @type {Record<string, string>} */
  let marks = {};
  /** @type {Map<string, Set<() => void>>} */
  const listeners = new Map();
  /** @type {Map<string, (answer: {ok: boolean, text: string}) => void>} */
  const waiting = new Map();
  let options = { details: false, window: 0, narrow: false, older: 0 };
  let clock = { told: 0, at: 0 }; // the run's clock at a moment of this page's
  let served = -Infinity; // when the server last answered for this run
  let heard = -Infinity; // when the kernel last gave a sign
  let refused = false; // whether the server has no such run
  let failure = ''; // why the server's last answer was none
  let closed = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;

  const tell = (/** @type {string} */ name) => {
    for (const listener of listeners.get(name) ?? []) {
      listener();
    }
  };
  const byServer = () => performance.now() - served < FRESH;

  function take(/** @type {string} */ name, /** @type {any} */ value) {
    parts[name] = value;
    tell(name);
  }

  // -- the server --------------------------------------------------------------------------------------
  async function poll() {
    clearTimeout(timer);
    const asked = JSON.stringify(options);
    const query = new URLSearchParams({
      details: options.details ? '1' : '0',
      window: String(options.window),
      narrow: options.narrow ? '1' : '0',
      older: String(options.older),
      have: JSON.stringify(marks)
    });
    const { status, answer } = await askServer(
      `runs/${encodeURIComponent(run)}/monitor?${query}`
    );
    if (closed) {
      return;
    }
    const ours = status === 200 && (!home || answer.home === home);
    refused = !ours && (status === 200 || status === 404);
    failure = ours
      ? ''
      : status === 200
        ? 'it uses another LLF_HOME'
        : (answer.message ?? `HTTP ${status}`);
    if (ours) {
      served = performance.now();
      clock = { told: answer.now, at: Date.now() };
      setServed(true);
      marks = answer.marks;
      for (const [name, part] of Object.entries(answer.parts)) {
        take(name, part);
      }
    } else if (!byServer()) {
      marks = {}; // what the kernel shows meanwhile is another state than the server's marks tell of
      setServed(false);
      fromKernel();
    }
    tell('source');
    const wait = refused
      ? REFUSED_EVERY
      : !ours
        ? RETRY_EVERY
        : parts.head?.live
          ? LIVE_EVERY
          : ENDED_EVERY;
    timer = setTimeout(next, asked === JSON.stringify(options) ? wait : 0);
  }

  /** A page in the background waits until it is looked at. */
  function next() {
    if (!closed && !document.hidden) {
      void poll();
    }
  }

  function setServed(/** @type {boolean} */ on) {
    if (!model || model.get('served') === on) {
      return;
    }
    model.set('served', on);
    model.save_changes();
  }

  // -- the kernel --------------------------------------------------------------------------------------
  function fromKernel() {
    if (!model) {
      return;
    }
    for (const name of PARTS) {
      if (parts[name] !== model.get(name)) {
        take(name, model.get(name));
      }
    }
    clock = {
      told: Math.max(model.get('beat'), model.get('head').now ?? 0),
      at: Date.now()
    };
  }

  /** @type {[string, (...values: any[]) => void][]} */
  const kernel = !model
    ? []
    : [
        ...PARTS.map(
          name =>
            /** @type {[string, () => void]} */ ([
              `change:${name}`,
              () => {
                heard = performance.now();
                if (byServer()) {
                  return;
                }
                take(name, model.get(name));
                if (name === 'head') {
                  clock = { told: model.get('head').now, at: Date.now() };
                }
              }
            ])
        ),
        [
          'change:beat',
          () => {
            heard = performance.now();
            if (!byServer()) {
              clock = { told: model.get('beat'), at: Date.now() };
            }
            tell('source');
          }
        ],
        ['change:trouble', () => tell('trouble')],
        ['change:elsewhere', () => tell('elsewhere')],
        [
          'comm_live_update',
          () => {
            // the manager marks a view whose kernel was restarted or shut down
            if (model?.comm_live === false) {
              heard = -Infinity;
            }
            tell('source');
          }
        ],
        ['msg:custom', said => waiting.get(said?.key)?.(said)]
      ];
  for (const [event, listener] of kernel) {
    model?.on(event, listener);
  }

  /**
   * Asks the kernel to do something.
   * @param {string} what
   * @param {object} args
   * @param {() => void} slow called where no answer came within 3 s
   * @returns {Promise<{ok: boolean, text: string}>}
   */
  function askKernel(what, args, slow) {
    const key = crypto.randomUUID?.() ?? String(Math.random());
    return new Promise(resolve => {
      const patience = setTimeout(slow, 3000);
      waiting.set(key, said => {
        clearTimeout(patience);
        waiting.delete(key);
        resolve({ ok: said.ok, text: said.text });
      });
      model?.send({ type: what, args, key });
    });
  }

  // -- from here on ------------------------------------------------------------------------------------
  const visible = () => {
    if (!document.hidden) {
      next();
    }
  };
  document.addEventListener('visibilitychange', visible);
  window.addEventListener('focus', visible);
  fromKernel();
  if (model && model.comm_live !== false) {
    heard = performance.now();
  }
  if (jupyterServer()) {
    void poll();
  } else {
    setServed(false);
  }

  return {
    run,
    host,
    hasKernel: Boolean(model),
    get: (/** @type {string} */ name) => parts[name] ?? model?.get(name),
    /** The run's own clock, Unix seconds. */
    now: () => clock.told + (Date.now() - clock.at) / 1000,
    options: () => options,
    failure: () => failure,
    /** @returns {'server' | 'kernel' | ''} who gives the parts; nobody where both are silent */
    source: () =>
      byServer() || performance.now() - served < QUIET_AFTER
        ? 'server'
        : model && performance.now() - heard < QUIET_AFTER
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
    look() {
      next();
      if (model && !byServer()) {
        model.send({ type: 'look' });
      }
    },
    askKernel,
    /** Has the kernel compare itself with the server, whose panel may list the runs of another folder. */
    async compareWithServer() {
      const { status, answer } = await askServer('version');
      if (status === 200 && !closed && model) {
        model.send({ type: 'server', args: answer });
      }
    },
    on(/** @type {string} */ name, /** @type {() => void} */ listener) {
      listeners.set(name, (listeners.get(name) ?? new Set()).add(listener));
    },
    close() {
      closed = true;
      clearTimeout(timer);
      document.removeEventListener('visibilitychange', visible);
      window.removeEventListener('focus', visible);
      for (const [event, listener] of kernel) {
        model?.off(event, listener);
      }
      listeners.clear();
    }
  };
}
