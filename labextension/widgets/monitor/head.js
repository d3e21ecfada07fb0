// The header of a monitor: state, progress, key metrics, messages, and the controls of the run.

import { formatTime, copyButton, h, setText } from '../shared/dom.js';
import { foreignCodeNotice } from '../shared/foreign_code.js';
import { requestServer, jupyterServer } from '../shared/server.js';
import { formatDuration } from '../../src/numbers';
import { showExamples } from './chart_controls.js';

/** @import { Feed } from './feed.js' */

const ANNOUNCE_INTERVAL = 8000; // ms between two progress texts for screen readers
/** @type {Record<string, string>} */
const REQUEST_LABELS = {
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
const REPEATABLE = ['checkpoint', 'evaluate', 'sample', 'set', 'examples']; // requests that may be repeated

/** @typedef {{label: string, value: string, unit: string, note: string}} KeyNumber */
/** @typedef {{level: string, text: string, actions?: {label: string, change: object}[]}} Message */
/**
 * @typedef {object} HeadData result of `llf_widgets.monitor.status_text.header_json`
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
 * Draws a message with its level as a word, so that colour is not the only sign.
 * @param {Message} message
 * @param {(change: object) => void} [onAction] called with the change of a clicked button
 * @returns {HTMLElement}
 */
function messageLine({ level, text, actions = [] }, onAction) {
  const levelText = { error: 'Error', warn: 'Warning' }[level] ?? 'Note';
  const role = level === 'error' ? 'alert' : 'status';
  return h(
    'div',
    { class: `llf-Message is-${level || 'note'}`, role },
    h('b', {}, levelText),
    h(
      'div',
      {},
      text,
      actions.length && onAction
        ? h(
            'div',
            { class: 'llf-Message-actions' },
            ...actions.map(({ label, change }) =>
              h(
                'button',
                { type: 'button', onclick: () => onAction(change) },
                label
              )
            )
          )
        : null
    )
  );
}

/**
 * Draws the header and sends the requests of its buttons: to the server, which answers while the kernel is busy, or else
 * to the kernel.
 * @param {Feed} feed
 */
export function headSection(feed) {
  let closed = false;
  let announcedAt = 0;
  let requested = ''; // the request that the run has not carried out yet
  let showsDelay = true; // whether the request status shows how long a request may take
  let drawn = { numbers: '', messages: '', actions: '' };

  /** @returns {HeadData} */
  const header = () => feed.get('head') ?? {};

  // -- elements --------------------------------------------------------------------------------------
  const name = h('h2');
  const state = h('span', { class: 'llf-State' });
  const about = h('span', { class: 'llf-secondary' });
  const id = h('span');
  const copy = copyButton(() => header().id);
  const statusText = h('div', { class: 'llf-Monitor-status' });
  const disconnected = h('div', { role: 'alert' });
  const viewError = h('div', { role: 'alert' });
  const serverMismatch = h('div');
  const barFill = h('i');
  const bar = h(
    'div',
    { class: 'llf-Progress', role: 'progressbar', 'aria-valuemin': '0' },
    barFill
  );
  const step = h('span');
  const epoch = h('span');
  const elapsed = h('span');
  const remaining = h('span');
  const eta = h('span', { class: 'llf-secondary' });
  const lastCheckpoint = h('span', { class: 'llf-secondary' });
  const updated = h('span', { class: 'llf-secondary llf-push' });
  const numbers = h('dl', { class: 'llf-Numbers' });
  const messages = h('div');
  const buttons = h('span', { class: 'llf-row' });
  const requestStatus = h('span', {
    class: 'llf-secondary llf-small',
    role: 'status'
  });
  const killBox = h('span', { class: 'llf-row llf-push' });
  const rateSetting = numberSetting(
    'Peak learning rate',
    text => ({ learning_rate: Number(text) }),
    { inputmode: 'decimal' }
  );
  const endSetting = numberSetting(
    'End at step',
    text => ({ max_steps: Number(text) }),
    {
      inputmode: 'numeric'
    }
  );
  const controls = h(
    'div',
    {
      class: 'llf-Monitor-controls',
      role: 'group',
      'aria-label': 'Control the run'
    },
    buttons,
    rateSetting.box,
    endSetting.box,
    requestStatus,
    killBox
  );
  const codeBox = h('div');
  const announcement = h('span', { class: 'llf-sr', role: 'status' });
  const box = h(
    'div',
    { class: 'llf-Head' },
    h(
      'div',
      { class: 'llf-Monitor-head' },
      name,
      state,
      about,
      h('span', { class: 'llf-secondary llf-push llf-mono' }, id, ' ', copy)
    ),
    bar,
    h(
      'div',
      { class: 'llf-Monitor-progress' },
      step,
      epoch,
      elapsed,
      remaining,
      eta,
      lastCheckpoint,
      updated
    ),
    statusText,
    disconnected,
    viewError,
    serverMismatch,
    numbers,
    messages,
    controls,
    codeBox,
    announcement
  );

  /** Creates the input and the button that change a number of the live run. Input is not overwritten until it is sent. */
  function numberSetting(
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
      h('label', { class: 'llf-secondary' }, `${label} `, input),
      button
    );
    function set() {
      if (!input.value.trim() || Number.isNaN(Number(input.value))) {
        showsDelay = false;
        setText(
          requestStatus,
          `${label} is "${input.value}". Expected a number.`
        );
        input.focus();
        return;
      }
      sendRequest('set', change(input.value));
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
    const v = header();
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
    barFill.style.width = `${100 * share}%`;
    bar.setAttribute('aria-label', `Progress of ${v.name}`);
    bar.setAttribute('aria-valuemax', String(v.total || 1));
    bar.setAttribute('aria-valuenow', String(v.step));
    setBoldText(
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
      messageLine(message, change => sendRequest('set', change))
    );
    if (requested && !v.actions.includes(requested)) {
      requested = '';
      showsDelay = true;
    }
    if (showsDelay) {
      setText(requestStatus, v.request_delay);
    }
    drawActions(v);
    rateSetting.show(v.peak_learning_rate);
    endSetting.show(v.total ? String(v.total) : '');
    updateTimes();
  }

  function drawStatusText(/** @type {HeadData} */ v) {
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

  /** Draws a list again only if its data has changed. */
  function drawList(
    /** @type {'numbers' | 'messages'} */ key,
    /** @type {any[]} */ data,
    /** @type {HTMLElement} */ box,
    /** @type {(item: any) => HTMLElement} */ item
  ) {
    const text = JSON.stringify(data);
    if (drawn[key] === text) {
      return;
    }
    drawn[key] = text;
    box.replaceChildren(...data.map(item));
  }

  function setBoldText(
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

  function drawActions(/** @type {HeadData} */ v) {
    const text = JSON.stringify([v.actions, v.resume_label, requested]);
    if (drawn.actions === text) {
      return;
    }
    drawn.actions = text;
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
    for (const { box } of [rateSetting, endSetting]) {
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
              onclick: () => sendRequest(what)
            },
            labels[what]
          )
        )
    );
    if (v.actions.includes('download')) {
      buttons.append(...downloadLink(v.id));
    }
    killBox.replaceChildren(
      ...(v.actions.includes('kill') ? [killButton()] : [])
    );
    controls.hidden = !buttons.hasChildNodes() && !killBox.hasChildNodes();
  }

  /** Returns the link that downloads the result as a zip file, if there is a Jupyter server. */
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
        onclick: confirmKill
      },
      'Kill…'
    );
  }

  function confirmKill() {
    const last = header().checkpoints.at(-1);
    const consequence =
      last === undefined
        ? 'there is no checkpoint to resume from'
        : `steps after checkpoint-${last} are lost`;
    const cancel = h(
      'button',
      {
        type: 'button',
        onclick: () => {
          killBox.replaceChildren(killButton());
        }
      },
      'Keep running'
    );
    const kill = h(
      'button',
      {
        type: 'button',
        class: 'llf-danger',
        onclick: () => sendRequest('kill')
      },
      'Kill now'
    );
    killBox.replaceChildren(
      h(
        'span',
        { role: 'alert' },
        `This ends the trainer immediately; ${consequence}.`
      ),
      kill,
      cancel
    );
    cancel.focus();
  }

  /** Updates everything that changes with time alone: durations, and whether the view is disconnected. */
  function updateTimes() {
    const v = header();
    if (!v.id) {
      return;
    }
    const now = feed.now();
    const passed = Math.max(0, now - v.now);
    const isDisconnected = v.live && !feed.source();
    setBoldText(
      elapsed,
      'elapsed ',
      formatDuration(v.elapsed + (v.live && !isDisconnected ? passed : 0))
    );
    const left =
      v.remaining === null ? null : Math.max(0, v.remaining - passed);
    if (left === null) {
      setText(remaining, '');
      setText(eta, '');
    } else {
      setBoldText(remaining, 'remaining ', formatDuration(left));
      setText(eta, `ETA ${formatTime(now + left)}`);
    }
    setText(
      lastCheckpoint,
      v.checkpoint_time === null || !v.live
        ? ''
        : `last checkpoint ${formatDuration(now - v.checkpoint_time)} ago`
    );
    setText(
      updated,
      v.heartbeat === null || !v.live
        ? ''
        : `updated ${formatAgo(now - v.heartbeat)}`
    );
    drawDisconnected(isDisconnected);
    if (performance.now() - announcedAt < ANNOUNCE_INTERVAL) {
      return;
    }
    announcedAt = performance.now();
    const text =
      v.total > 0
        ? `step ${v.step} of ${v.total}${left === null ? '' : `, ${formatDuration(left)} remaining`}`
        : `step ${v.step}`;
    bar.setAttribute('aria-valuetext', text);
    setText(
      announcement,
      v.live ? `${v.name} ${v.state}, ${text}` : `${v.name} ${v.state}`
    );
  }

  function formatAgo(/** @type {number} */ seconds) {
    return seconds < 1.5
      ? '1 s ago'
      : seconds < 60
        ? `${Math.round(seconds)} s ago`
        : `${formatDuration(seconds)} ago`;
  }

  /** Says that the view is disconnected, with code to copy that opens the run again; otherwise users run the cell again. */
  function drawDisconnected(/** @type {boolean} */ isDisconnected) {
    box
      .closest('.llf-Monitor')
      ?.classList.toggle('is-disconnected', isDisconnected);
    if (Boolean(disconnected.firstChild) === isDisconnected) {
      return;
    }
    const code = `llf.Monitor(${JSON.stringify(header().id)})`;
    disconnected.replaceChildren(
      ...(isDisconnected
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

  // -- requests --------------------------------------------------------------------------------------
  /** Sends a request to the server or, if the server cannot answer, to the kernel, and shows which one received it. */
  async function sendRequest(
    /** @type {string} */ type,
    /** @type {object} */ args = {}
  ) {
    if (type === 'examples') {
      return showExamples(feed, requestStatus);
    }
    requested = type;
    showsDelay = false;
    drawActions(header());
    if (type === 'resume') {
      return showResult(
        type,
        await resume(/** @type {any} */ (args).trust ?? '')
      );
    }
    setText(
      requestStatus,
      `${REQUEST_LABELS[type]}: sending the request to the Jupyter server…`
    );
    const { status, answer: reply } = await requestServer(
      `runs/${encodeURIComponent(header().id)}/control`,
      { type, args, by: 'monitor' }
    );
    if (status === 202) {
      return showResult(type, {
        ok: true,
        text: `${REQUEST_LABELS[type]} requested through the Jupyter server`
      });
    }
    if (status === 409 || status === 400) {
      return showResult(type, {
        ok: false,
        text: reply.message ?? 'The run has ended.'
      });
    }
    const why = status
      ? `answered ${status}`
      : `did not answer (${reply.message})`;
    showResult(
      type,
      await requestThroughKernel(type, args, `; the Jupyter server ${why}`)
    );
  }

  /**
   * Resumes the run by this view's kernel or in a cell. If the run comes from elsewhere, its code is shown first.
   * @param {string} trust hash of the code that the user has allowed; empty at first
   */
  async function resume(trust) {
    if (!trust && (await reviewForeignCode())) {
      return {
        ok: false,
        text: 'Not resumed yet. Review the code of this run first.'
      };
    }
    const call = `llf.attach(${JSON.stringify(header().id)}).resume(${trust && `trust=${JSON.stringify(trust)}`})`;
    if (feed.hasKernel) {
      return requestThroughKernel('resume', { trust }, '');
    }
    if (!feed.host?.runCell) {
      return { ok: false, text: `Run this in a cell: ${call}` };
    }
    await feed.host.runCell(call);
    return { ok: true, text: 'Resuming in the cell below.' };
  }

  /** Shows the foreign code of the run. Returns false if it has none; the resume itself refuses code that is not allowed. */
  async function reviewForeignCode() {
    const found = await foreignCode();
    if (!found.code?.length) {
      return false;
    }
    const cancel = h(
      'button',
      {
        type: 'button',
        onclick: () => {
          codeBox.replaceChildren();
          setText(requestStatus, '');
        }
      },
      'Cancel'
    );
    const allow = h(
      'button',
      {
        type: 'button',
        class: 'llf-danger',
        onclick: () => {
          codeBox.replaceChildren();
          sendRequest('resume', { trust: found.sha256 });
        }
      },
      'Allow this code and resume'
    );
    codeBox.replaceChildren(
      foreignCodeNotice(
        found.code,
        'This run was created on another machine or modified since. Resuming it executes this code.',
        [allow, cancel]
      )
    );
    cancel.focus();
    return true;
  }

  async function foreignCode() {
    if (feed.source() === 'server') {
      return (
        await requestServer(`runs/${encodeURIComponent(header().id)}/code`)
      ).answer;
    }
    const { ok, text } = feed.hasKernel
      ? await requestThroughKernel('code', {}, '')
      : { ok: false, text: '' };
    return ok ? JSON.parse(text) : {};
  }

  function showResult(
    /** @type {string} */ type,
    /** @type {{ok: boolean, text: string}} */ { ok, text }
  ) {
    if (closed) {
      return;
    }
    const within = ok && type !== 'resume' && header().request_delay;
    setText(requestStatus, within ? `${text}, ${within}.` : text);
    if (!ok || REPEATABLE.includes(type)) {
      requested = '';
    }
    drawn.actions = '';
    drawActions(header());
    feed.refresh();
  }

  /**
   * Sends a request to the kernel.
   * @returns {Promise<{ok: boolean, text: string}>}
   */
  async function requestThroughKernel(
    /** @type {string} */ type,
    /** @type {object} */ args,
    /** @type {string} */ why
  ) {
    if (!feed.hasKernel) {
      return {
        ok: false,
        text: `${REQUEST_LABELS[type]} request not sent${why}. Try again.`
      };
    }
    setText(
      requestStatus,
      `${REQUEST_LABELS[type]}: sending the request to the kernel…`
    );
    const { ok, text } = await feed.requestKernel(type, args, () =>
      setText(
        requestStatus,
        `${REQUEST_LABELS[type]} request waits in the kernel until the running cell ends${why}. If no cell is running, the kernel has shut down: open llf.Monitor in another notebook.`
      )
    );
    return { ok, text: ok ? `${text}${why}` : text };
  }

  const timer = setInterval(updateTimes, 1000);
  for (const name of ['head', 'source']) {
    feed.on(name, name === 'head' ? draw : updateTimes);
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
