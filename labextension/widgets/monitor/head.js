// The header of a monitor: state, progress, key metrics, messages, and the controls of the run.

import { copyButton } from '../shared/clipboard.js';
import {
  drawIfChanged,
  drawKeyed,
  keepFocus,
  h,
  setText
} from '../shared/dom.js';
import { NO_REPLY } from '../../src/error_sentences';
import { jupyterServer } from '../shared/server.js';
import { runControls } from './controls.js';
import { messageBox } from '../shared/message.js';
import { messageLine } from './message_line.js';
import { progressSection } from './progress.js';

/** @import { Feed } from './feed.js' */
/** @import { Message } from './message_line.js' */

/** @typedef {{label: string, value: string, unit: string, note: string}} KeyNumber */
/**
 * @typedef {object} HeadData result of `llf_widgets.monitor.status_text.header_json`
 * @property {string} id @property {string} name @property {string} state @property {boolean} live
 * @property {string} description @property {string} status_text @property {Message['level']} level
 * @property {boolean} [finding] whether the curves of a finished run speak against its result
 * @property {string} [predictions_text]
 * @property {number} step @property {number} total @property {number | null} epoch @property {number | null} epochs
 * @property {number} elapsed @property {number | null} remaining @property {number[]} checkpoints
 * @property {number | null} checkpoint_time @property {number | null} heartbeat @property {KeyNumber[]} numbers
 * @property {Message[]} messages @property {string[]} actions @property {string} request_delay
 * @property {string} resume_label
 * @property {number} now @property {string} peak_learning_rate
 */

/**
 * Draws the header. What a reader may be using stays in place when data arrives.
 * @param {Feed} feed
 */
export function headSection(feed) {
  /** @returns {HeadData} */
  const header = () => feed.get('head') ?? {};

  const name = h('h2', { tabindex: '-1' });
  const state = h('span', { class: 'llf-State' });
  const about = h('span', { class: 'llf-secondary' });
  const id = h('span');
  const copy = copyButton(() => header().id, { name: 'Copy the run id' });
  const progress = progressSection(feed);
  const statusText = h('div', { class: 'llf-Monitor-status' });
  const predictions = h('div', { class: 'llf-Monitor-status' });
  const disconnected = h('div', { role: 'alert' });
  const viewError = h('div', { role: 'alert' });
  const serverMismatch = h('div');
  const numbers = h('dl', { class: 'llf-Numbers' });
  const messages = h('div');
  const controls = runControls(feed, () => name);
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
    progress.bar,
    progress.line,
    statusText,
    predictions,
    disconnected,
    viewError,
    serverMismatch,
    numbers,
    messages,
    controls.box,
    controls.notice,
    progress.announcement
  );

  function draw() {
    const v = header();
    if (!v.id) {
      return;
    }
    setText(name, v.name);
    setText(id, v.id);
    setText(about, v.description);
    setText(state, v.state);
    state.className = `llf-State is-${v.state}${v.finding ? ' has-finding' : ''}`;
    box.classList.toggle('is-live', v.live);
    drawIfChanged(statusText, [v.status_text, v.level], () => [
      v.level
        ? messageLine({ level: v.level, text: v.status_text })
        : v.status_text
    ]);
    statusText.hidden = !v.status_text;
    setText(predictions, v.predictions_text ?? '');
    predictions.hidden = !v.predictions_text;
    progress.draw(v);
    drawKeyed(
      numbers,
      v.numbers,
      ({ label }) => label,
      keyNumber,
      showKeyNumber
    );
    keepFocus(
      messages,
      () =>
        drawKeyed(messages, v.messages, JSON.stringify, message =>
          messageLine(message, controls.change)
        ),
      () => name
    );
    controls.draw();
    drawTimes();
  }

  /** Updates everything that changes with time alone: durations, and whether the view is disconnected. */
  function drawTimes() {
    const v = header();
    if (!v.id) {
      return;
    }
    const isDisconnected = v.live && !feed.source();
    progress.drawTimes(v, isDisconnected);
    box
      .closest('.llf-Monitor')
      ?.classList.toggle('is-disconnected', isDisconnected);
    if (Boolean(disconnected.firstChild) !== isDisconnected) {
      disconnected.replaceChildren(
        ...(isDisconnected ? [disconnectedMessage(feed, v.id)] : [])
      );
      controls.draw();
    }
  }

  /** Draws a warning of the kernel, if there is one. */
  function drawWarning(
    /** @type {HTMLElement} */ part,
    /** @type {string | undefined} */ text
  ) {
    drawIfChanged(part, text ?? '', () =>
      text ? [messageLine({ level: 'warn', text })] : []
    );
  }
  const drawError = () =>
    drawWarning(viewError, feed.source() === 'kernel' ? feed.get('error') : '');
  const drawServerMismatch = () =>
    drawWarning(serverMismatch, feed.get('server_mismatch'));

  const timer = setInterval(drawTimes, 1000);
  feed.on('head', draw);
  feed.on('source', drawTimes);
  feed.on('source', drawError);
  feed.on('error', drawError);
  feed.on('server_mismatch', drawServerMismatch);
  draw();
  drawError();
  drawServerMismatch();
  void feed.compareWithServer();
  return {
    box,
    close: () => {
      controls.close();
      clearInterval(timer);
    }
  };
}

/** Creates the element of a key metric. @param {KeyNumber} number */
function keyNumber({ label }) {
  return h(
    'div',
    {},
    h('dt', {}, label),
    h('dd', {}, h('span'), h('small')),
    h('dd', { class: 'llf-Numbers-note' })
  );
}

/** Shows a key metric in its element. @param {HTMLElement} node @param {KeyNumber} number */
function showKeyNumber(node, { value, unit, note }) {
  const [shown, small] = /** @type {HTMLElement[]} */ ([
    ...node.children[1].children
  ]);
  setText(shown, unit ? `${value} ` : value);
  setText(small, unit);
  setText(/** @type {HTMLElement} */ (node.children[2]), note);
}

/**
 * Says that the view is disconnected, with code to copy that opens the run again; otherwise users run the cell again.
 * @param {Feed} feed
 * @param {string} run
 */
function disconnectedMessage(feed, run) {
  const code = `llf.Monitor(${JSON.stringify(run)})`;
  return messageBox(
    'warn',
    [
      h('b', {}, 'This view is disconnected. The run is not affected.'),
      jupyterServer()
        ? ` ${feed.failure() || NO_REPLY} Retrying.`
        : ' Its kernel has shut down.',
      ' To open the run in another notebook: ',
      h('code', {}, code),
      ' ',
      copyButton(() => code, { name: 'Copy the code' })
    ],
    { role: null } // the element around it is an alert
  );
}
