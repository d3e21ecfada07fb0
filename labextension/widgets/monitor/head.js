// Header of a run's view: state, progress, key numbers, messages and the row that steers the run.

import { clock, copyButton, h, setText } from '../shared/dom.js';
import { codeNotice } from '../shared/foreign_code.js';
import { requestServer, jupyterServer } from '../shared/server.js';
import { formatDuration as duration } from '../../src/numbers';
import { showExamples } from './chart_controls.js';

/** @import { Feed } from './feed.js' */

const SPEAK_EVERY = 8000; // ms between two spoken progress texts
/** @type {Record<string, string>} */
const VERBS = {
  stop: 'Stop',
  checkpoint: 'Checkpoint',
  evaluate: 'Evaluation',
  sample: 'Sample',
  set: 'Change',
  kill: 'Kill',
  resume: 'Resume',
  examples: 'Examples',
  code: 'Code'
};
const ONCE = ['checkpoint', 'evaluate', 'sample', 'set', 'examples']; // requests that may be made again and again

/** @typedef {{label: string, value: string, unit: string, note: string}} KeyNumber */
/** @typedef {{level: string, text: string, actions?: {label: string, change: object}[]}} Message */
/**
 * @typedef {object} View what `llf_widgets.monitor.status_text.header_json` makes
 * @property {string} id @property {string} name @property {string} state @property {boolean} live
 * @property {string} description @property {string} status_text @property {string} level
 * @property {number} step @property {number} total @property {number | null} epoch @property {number | null} epochs
 * @property {number} elapsed @property {number | null} remaining @property {number[]} checkpoints
 * @property {number | null} checkpoint_time @property {number | null} heartbeat @property {KeyNumber[]} numbers
 * @property {Message[]} messages @property {string[]} actions @property {string} request_delay
 * @property {string} resume_label
 * @property {number} now @property {string} peak_learning_rate
 */

/**
 * @param {Message} message
 * @param {(change: object) => void} [act] what a button of the message does
 * @returns {HTMLElement}
 */
function messageLine({ level, text, actions = [] }, act) {
  const word = { error: 'Error', warn: 'Warning' }[level] ?? 'Note';
  const role = level === 'error' ? 'alert' : 'status';
  return h(
    'div',
    { class: `llf-Message is-${level || 'note'}`, role },
    h('b', {}, word),
    h(
      'div',
      {},
      text,
      actions.length && act
        ? h(
            'div',
            { class: 'llf-Message-actions' },
            ...actions.map(({ label, change }) =>
              h('button', { type: 'button', onclick: () => act(change) }, label)
            )
          )
        : null
    )
  );
}

/** @param {Feed} feed */
export function headSection(feed) {
  let closed = false;
  let spoken = 0;
  let requested = ''; // the request that waits for the run to follow it
  let hint = true; // whether the answer line holds no answer but how long a request may take
  let shown = { numbers: '', messages: '', actions: '' };

  /** @returns {View} */
  const view = () => feed.get('head') ?? {};

  // -- parts -----------------------------------------------------------------------------------------
  const name = h('h2');
  const state = h('span', { class: 'llf-State' });
  const about = h('span', { class: 'llf-2' });
  const id = h('span');
  const copy = copyButton(() => view().id);
  const statusText = h('div', { class: 'llf-Monitor-status' });
  const gone = h('div', { role: 'alert' });
  const viewError = h('div', { role: 'alert' });
  const serverMismatch = h('div');
  const fill = h('i');
  const bar = h(
    'div',
    { class: 'llf-Progress', role: 'progressbar', 'aria-valuemin': '0' },
    fill
  );
  const step = h('span');
  const epoch = h('span');
  const elapsed = h('span');
  const remaining = h('span');
  const ends = h('span', { class: 'llf-2' });
  const saved = h('span', { class: 'llf-2' });
  const updated = h('span', { class: 'llf-2 llf-push' });
  const numbers = h('dl', { class: 'llf-Numbers' });
  const messages = h('div');
  const buttons = h('span', { class: 'llf-row' });
  const answer = h('span', { class: 'llf-2 llf-small', role: 'status' });
  const danger = h('span', { class: 'llf-row llf-push' });
  const rate = setting(
    'Peak learning rate',
    text => ({ learning_rate: Number(text) }),
    { inputmode: 'decimal' }
  );
  const end = setting('End at step', text => ({ max_steps: Number(text) }), {
    inputmode: 'numeric'
  });
  const controls = h(
    'div',
    {
      class: 'llf-Monitor-controls',
      role: 'group',
      'aria-label': 'Control the run'
    },
    buttons,
    rate.box,
    end.box,
    answer,
    danger
  );
  const code = h('div');
  const aloud = h('span', { class: 'llf-sr', role: 'status' });
  const box = h(
    'div',
    { class: 'llf-Head' },
    h(
      'div',
      { class: 'llf-Monitor-head' },
      name,
      state,
      about,
      h('span', { class: 'llf-2 llf-push llf-mono' }, id, ' ', copy)
    ),
    bar,
    h(
      'div',
      { class: 'llf-Monitor-progress' },
      step,
      epoch,
      elapsed,
      remaining,
      ends,
      saved,
      updated
    ),
    statusText,
    gone,
    viewError,
    serverMismatch,
    numbers,
    messages,
    controls,
    code,
    aloud
  );

  /** A number of the live run, and the button that sets it. What is typed is left alone until it is set. */
  function setting(
    /** @type {string} */ label,
    /** @type {(text: string) => object} */ change,
    /** @type {Record<string, string>} */ more
  ) {
    const input = h('input', {
      type: 'text',
      ...more,
      onkeydown: (/** @type {any} */ event) => {
        if (event.key === 'Enter') {
          set();
        }
      }
    });
    const button = h(
      'button',
      {
        type: 'button',
        'aria-label': `Set ${label.toLowerCase()}`,
        onclick: set
      },
      'Set'
    );
    const box = h(
      'span',
      { class: 'llf-Setting' },
      h('label', { class: 'llf-2' }, `${label} `, input),
      button
    );
    function set() {
      if (!input.value.trim() || Number.isNaN(Number(input.value))) {
        hint = false;
        setText(answer, `${label} is "${input.value}". Expected a number.`);
        input.focus();
        return;
      }
      steer('set', change(input.value));
    }
    function show(/** @type {string} */ text) {
      if (input.dataset.value === text) {
        return;
      }
      if (document.activeElement !== input) {
        input.value = text;
      }
      input.dataset.value = text;
    }
    return { box, show };
  }

  // -- drawing ---------------------------------------------------------------------------------------
  function draw() {
    const v = view();
    if (!v.id) {
      return;
    }
    setText(name, v.name);
    setText(id, v.id);
    setText(about, v.description);
    setText(state, v.state);
    state.className = `llf-State is-${v.state}`;
    drawStatusText(v);
    box.classList.toggle('is-live', v.live);
    const share = v.total > 0 ? Math.min(1, v.step / v.total) : 0;
    fill.style.width = `${100 * share}%`;
    bar.setAttribute('aria-label', `Progress of ${v.name}`);
    bar.setAttribute('aria-valuemax', String(v.total || 1));
    bar.setAttribute('aria-valuenow', String(v.step));
    bold(
      step,
      'step ',
      v.step.toLocaleString('en'),
      v.total > 0 ? ` of ${v.total.toLocaleString('en')}` : ''
    );
    setText(
      epoch,
      v.epoch === null
        ? ''
        : `epoch ${v.epoch}${v.epochs ? ` of ${v.epochs}` : ''}`
    );
    drawList('numbers', v.numbers, numbers, n =>
      h(
        'div',
        {},
        h('dt', {}, n.label),
        h(
          'dd',
          {},
          n.value,
          n.unit ? ' ' : '',
          n.unit ? h('small', {}, n.unit) : ''
        ),
        h('dd', { class: 'llf-Numbers-note' }, n.note)
      )
    );
    drawList('messages', v.messages, messages, message =>
      messageLine(message, change => steer('set', change))
    );
    if (requested && !v.actions.includes(requested)) {
      requested = '';
      hint = true;
    }
    if (hint) {
      setText(answer, v.request_delay);
    }
    drawActions(v);
    rate.show(v.peak_learning_rate);
    end.show(v.total ? String(v.total) : '');
    tick();
  }

  function drawStatusText(/** @type {View} */ v) {
    if (statusText.dataset.text === v.status_text + v.level) {
      return;
    }
    statusText.dataset.text = v.status_text + v.level;
    statusText.replaceChildren(
      v.level
        ? messageLine({ level: v.level, text: v.status_text })
        : v.status_text
    );
    statusText.hidden = !v.status_text;
  }

  /** Rebuilds a list only where its data has changed. */
  function drawList(
    /** @type {'numbers' | 'messages'} */ key,
    /** @type {any[]} */ data,
    /** @type {HTMLElement} */ box,
    /** @type {(item: any) => HTMLElement} */ item
  ) {
    const text = JSON.stringify(data);
    if (shown[key] === text) {
      return;
    }
    shown[key] = text;
    box.replaceChildren(...data.map(item));
  }

  function bold(
    /** @type {HTMLElement} */ box,
    /** @type {string} */ before,
    /** @type {string} */ value,
    after = ''
  ) {
    const text = before + value + after;
    if (box.textContent !== text) {
      box.replaceChildren(before, h('b', {}, value), after);
    }
  }

  function drawActions(/** @type {View} */ v) {
    const text = JSON.stringify([v.actions, v.resume_label, requested]);
    if (shown.actions === text) {
      return;
    }
    shown.actions = text;
    /** @type {Record<string, string>} */
    const labels = {
      stop:
        { created: 'Remove from queue', starting: 'Stop' }[v.state] ??
        'Stop with checkpoint',
      checkpoint: 'Save checkpoint',
      evaluate: 'Evaluate now',
      sample: 'Generate samples now',
      resume: v.resume_label,
      examples: 'Show rows…'
    };
    for (const { box } of [rate, end]) {
      box.hidden = !v.actions.includes('set');
    }
    buttons.replaceChildren(
      ...v.actions
        .filter(what => what in labels)
        .map(what =>
          h(
            'button',
            {
              type: 'button',
              'data-action': what,
              disabled: requested === what,
              onclick: () => steer(what)
            },
            labels[what]
          )
        )
    );
    if (v.actions.includes('download')) {
      buttons.append(...downloadLink(v.id));
    }
    danger.replaceChildren(
      ...(v.actions.includes('kill') ? [killButton()] : [])
    );
    controls.hidden = !buttons.hasChildNodes() && !danger.hasChildNodes();
  }

  /** The result as a zip, where a Jupyter server can give it. */
  function downloadLink(/** @type {string} */ run) {
    const server = jupyterServer();
    if (!server) {
      return [];
    }
    const href = new URL(
      `${server.base}llf/api/runs/${run}/output.zip`,
      location.href
    ).href;
    return [
      h(
        'a',
        { href, download: `${run}.zip`, 'data-action': 'download' },
        'Download result (zip)'
      )
    ];
  }

  function killButton() {
    return h(
      'button',
      {
        type: 'button',
        'data-action': 'kill',
        disabled: requested === 'kill',
        onclick: askKill
      },
      'Kill…'
    );
  }

  function askKill() {
    const last = view().checkpoints.at(-1);
    const safe =
      last === undefined
        ? 'there is no checkpoint to resume from'
        : `steps after checkpoint-${last} are lost`;
    const no = h(
      'button',
      {
        type: 'button',
        onclick: () => {
          danger.replaceChildren(killButton());
        }
      },
      'Keep running'
    );
    const yes = h(
      'button',
      { type: 'button', class: 'llf-danger', onclick: () => steer('kill') },
      'Kill now'
    );
    danger.replaceChildren(
      h(
        'span',
        { role: 'alert' },
        `This ends the trainer immediately; ${safe}.`
      ),
      yes,
      no
    );
    no.focus();
  }

  /** What only time changes: clocks, and whether anybody still gives a sign. */
  function tick() {
    const v = view();
    if (!v.id) {
      return;
    }
    const now = feed.now();
    const passed = Math.max(0, now - v.now);
    const lost = v.live && !feed.source();
    bold(
      elapsed,
      'elapsed ',
      duration(v.elapsed + (v.live && !lost ? passed : 0))
    );
    const left =
      v.remaining === null ? null : Math.max(0, v.remaining - passed);
    if (left === null) {
      setText(remaining, '');
      setText(ends, '');
    } else {
      bold(remaining, 'remaining ', duration(left));
      setText(ends, `ETA ${clock(now + left)}`);
    }
    setText(
      saved,
      v.checkpoint_time === null || !v.live
        ? ''
        : `last checkpoint ${duration(now - v.checkpoint_time)} ago`
    );
    setText(
      updated,
      v.heartbeat === null || !v.live ? '' : `updated ${ago(now - v.heartbeat)}`
    );
    drawLost(lost);
    if (performance.now() - spoken < SPEAK_EVERY) {
      return;
    }
    spoken = performance.now();
    const text =
      v.total > 0
        ? `step ${v.step} of ${v.total}${left === null ? '' : `, ${duration(left)} remaining`}`
        : `step ${v.step}`;
    bar.setAttribute('aria-valuetext', text);
    setText(
      aloud,
      v.live ? `${v.name} ${v.state}, ${text}` : `${v.name} ${v.state}`
    );
  }

  function ago(/** @type {number} */ seconds) {
    return seconds < 1.5
      ? '1 s ago'
      : seconds < 60
        ? `${Math.round(seconds)} s ago`
        : `${duration(seconds)} ago`;
  }

  /** A second cell that starts the training again would be the wrong way back, so the right one is there to copy. */
  function drawLost(/** @type {boolean} */ lost) {
    box.closest('.llf-Monitor')?.classList.toggle('is-gone', lost);
    if (Boolean(gone.firstChild) === lost) {
      return;
    }
    const code = `llf.Monitor(${JSON.stringify(view().id)})`;
    gone.replaceChildren(
      ...(lost
        ? [
            h(
              'div',
              { class: 'llf-Message is-warn' },
              h('b', {}, 'Warning'),
              h(
                'div',
                {},
                h(
                  'b',
                  {},
                  'This view is disconnected. The run is not affected.'
                ),
                jupyterServer()
                  ? ` The Jupyter server does not answer (${feed.failure() || 'no connection'}); retrying.`
                  : ' Its kernel has shut down.',
                ' To open the run in another notebook: ',
                h('code', {}, code),
                ' ',
                copyButton(code)
              )
            )
          ]
        : [])
    );
  }

  function drawError() {
    const text = feed.source() === 'kernel' ? feed.get('error') : '';
    viewError.replaceChildren(
      ...(text ? [messageLine({ level: 'warn', text })] : [])
    );
  }

  function drawServerMismatch() {
    const text = feed.get('server_mismatch');
    serverMismatch.replaceChildren(
      ...(text ? [messageLine({ level: 'warn', text })] : [])
    );
  }

  // -- steering --------------------------------------------------------------------------------------
  /** Asks the server, which answers while the kernel is busy; where it can't, the kernel. Says which way it went. */
  async function steer(
    /** @type {string} */ what,
    /** @type {object} */ args = {}
  ) {
    if (what === 'examples') {
      return showExamples(feed, answer);
    }
    requested = what;
    hint = false;
    drawActions(view());
    if (what === 'resume') {
      return finish(what, await resume(/** @type {any} */ (args).trust ?? ''));
    }
    setText(
      answer,
      `${VERBS[what]}: sending the request to the Jupyter server…`
    );
    const { status, answer: said } = await requestServer(
      `runs/${encodeURIComponent(view().id)}/control`,
      { type: what, args, by: 'monitor' }
    );
    if (status === 202) {
      return finish(what, {
        ok: true,
        text: `${VERBS[what]} requested through the Jupyter server`
      });
    }
    if (status === 409 || status === 400) {
      return finish(what, {
        ok: false,
        text: said.message ?? 'The run has ended.'
      });
    }
    const why = status
      ? `answered ${status}`
      : `did not answer (${said.message})`;
    finish(
      what,
      await throughKernel(what, args, `; the Jupyter server ${why}`)
    );
  }

  /**
   * A run is resumed by a process of a kernel: this view's, else one that runs a cell. One that was made serverMismatch shows
   * the code that it would run first.
   * @param {string} trust the hash of the code that the reader allows
   */
  async function resume(trust) {
    if (!trust && (await askTrust())) {
      return {
        ok: false,
        text: 'Not resumed yet. Review the code of this run first.'
      };
    }
    const call = `llf.attach(${JSON.stringify(view().id)}).resume(${trust && `trust=${JSON.stringify(trust)}`})`;
    if (feed.hasKernel) {
      return throughKernel('resume', { trust }, '');
    }
    if (!feed.host?.runCell) {
      return { ok: false, text: `Run this in a cell: ${call}` };
    }
    await feed.host.runCell(call);
    return { ok: true, text: 'Resuming in the cell below.' };
  }

  /** Shows the code that the run would bring along; false where there is none. Resuming it refuses it all the same. */
  async function askTrust() {
    const found = await foreignCode();
    if (!found.code?.length) {
      return false;
    }
    const no = h(
      'button',
      {
        type: 'button',
        onclick: () => {
          code.replaceChildren();
          setText(answer, '');
        }
      },
      'Cancel'
    );
    const yes = h(
      'button',
      {
        type: 'button',
        class: 'llf-danger',
        onclick: () => {
          code.replaceChildren();
          steer('resume', { trust: found.sha256 });
        }
      },
      'Allow this code and resume'
    );
    code.replaceChildren(
      codeNotice(
        found.code,
        'This run was created on another machine or modified since. Resuming it executes this code.',
        [yes, no]
      )
    );
    no.focus();
    return true;
  }

  async function foreignCode() {
    if (feed.source() === 'server') {
      return (await requestServer(`runs/${encodeURIComponent(view().id)}/code`))
        .answer;
    }
    const { ok, text } = feed.hasKernel
      ? await throughKernel('code', {}, '')
      : { ok: false, text: '' };
    return ok ? JSON.parse(text) : {};
  }

  function finish(
    /** @type {string} */ what,
    /** @type {{ok: boolean, text: string}} */ { ok, text }
  ) {
    if (closed) {
      return;
    }
    const within = ok && what !== 'resume' && view().request_delay;
    setText(answer, within ? `${text}, ${within}.` : text);
    if (!ok || ONCE.includes(what)) {
      requested = '';
    }
    shown.actions = '';
    drawActions(view());
    feed.refresh();
  }

  /** @returns {Promise<{ok: boolean, text: string}>} */
  async function throughKernel(
    /** @type {string} */ what,
    /** @type {object} */ args,
    /** @type {string} */ why
  ) {
    if (!feed.hasKernel) {
      return {
        ok: false,
        text: `${VERBS[what]} request not sent${why}. Try again.`
      };
    }
    setText(answer, `${VERBS[what]}: sending the request to the kernel…`);
    const { ok, text } = await feed.requestKernel(what, args, () =>
      setText(
        answer,
        `${VERBS[what]} request waits in the kernel until the running cell ends${why}. If no cell is running, the kernel has shut down: open llf.Monitor in another notebook.`
      )
    );
    return { ok, text: ok ? `${text}${why}` : text };
  }

  const timer = setInterval(tick, 1000);
  for (const name of ['head', 'source']) {
    feed.on(name, name === 'head' ? draw : tick);
  }
  for (const name of ['error', 'source']) {
    feed.on(name, drawError);
  }
  feed.on('server_mismatch', drawServerMismatch);
  draw();
  drawError();
  drawServerMismatch();
  void feed.compareWithServer();
  return {
    box,
    close: () => {
      closed = true;
      clearInterval(timer);
    }
  };
}
