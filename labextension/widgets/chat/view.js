// A chat: one question to all models, their replies side by side.

import '../shared/llf.css';
import './chat.css';
import { createButton, setDisabled } from '../shared/buttons.js';
import {
  drawIfChanged,
  drawKeyed,
  h,
  keepFocus,
  setText,
  uniqueId
} from '../shared/dom.js';
import { codeNotice } from '../shared/foreign_code.js';
import { initialize } from '../shared/initialize.js';
import { KERNEL_LOST, onKernelLost } from '../shared/kernel.js';
import { runInPageCell } from '../shared/page_cell.js';
import { formatBytes } from '../../src/numbers';
import { addModelControls } from './add_model.js';
import { modelsRow } from './models_row.js';
import { addedPictures, pictureStore } from './pictures.js';
import { settingsRow } from './settings.js';
import { turnView } from './turn.js';

/** @import { Context } from '../shared/model' */
/** @import { Page } from '../shared/page_cell.js' */
/** @import { ChatModel, ChatReply, ChatTurn, PictureMessage, ReplyUpdate } from './types' */

const MAX_MODELS = 4;
const ASK = ['Ask', 'Ask', 'Ask both', 'Ask all'];
const NEAR_END = 40; // pixels from the end of the log within which it follows what is written

/**
 * Draws the chat. The kernel has the conversation and sends it as a trait; while a reply is written, it sends its new
 * text in messages.
 * @param {Context} context
 */
function render({ model, el }) {
  const idPrefix = uniqueId('llf-chat');
  const send = (/** @type {object} */ content) => model.send(content);
  /** @type {Map<string, ReturnType<typeof turnView>>} */
  const views = new Map();
  /** @type {Map<string, {turn: string, reply: ChatReply}>} */
  const replies = new Map();
  let started = false;
  let alive = true; // whether the kernel hears of a question
  let sentCount = 0;
  /** The last question, until the kernel has taken it. @type {{request: string, text: string, pictures: ReturnType<typeof pictures.take>} | null} */
  let sent = null;
  let drawnProbabilities = model.get('_settings').probabilities;

  const newChat = createButton(
    'New chat',
    () => send({ type: 'new' }),
    'llf-link'
  );
  const adding = addModelControls(send);
  const settings = settingsRow(send, idPrefix, [adding.open, newChat]);
  const head = modelsRow(send);
  const notice = codeNotice({
    purpose: 'The model or its tokenizer needs it.',
    label: 'Allow this code and start the model',
    progress: 'Starting…',
    onAllow: () => send({ type: 'allow' }),
    fallback: () => question
  });
  const log = h('div', {
    class: 'llf-Chat-log',
    role: 'log',
    'aria-label': 'Conversation',
    'aria-live': 'polite',
    tabindex: '0'
  });
  const askLabel = h('label', {
    class: 'llf-secondary',
    for: `${idPrefix}-question`
  });
  const question = h('textarea', {
    id: `${idPrefix}-question`,
    rows: '2',
    placeholder: 'Ctrl Enter sends, Escape stops'
  });
  const sendButton = createButton('Send', ask, 'llf-primary');
  const stopAll = createButton('Stop all', stop);
  const compose = h('div', { class: 'llf-Chat-compose' });
  const store = pictureStore(send);
  const pictures = addedPictures({
    send,
    store,
    maxBytes: () => model.get('_picture_bytes'),
    question,
    target: compose,
    onChange: onInput
  });
  compose.append(
    askLabel,
    h('div', {}, question, pictures.box),
    h('div', {}, sendButton, stopAll, pictures.button)
  );
  const note = h('span', { role: 'status' });
  const memory = h('span', { class: 'llf-push' });
  const free = createButton(
    'Free the memory',
    () => send({ type: 'free' }),
    'llf-link'
  );
  const kept = h('span', { class: 'llf-Keep' });
  const foot = h(
    'div',
    { class: 'llf-Chat-foot llf-secondary llf-small' },
    kept,
    note,
    memory,
    free
  );
  el.classList.add('llf', 'llf-Chat');
  el.replaceChildren(
    ...settings.nodes,
    adding.form,
    head.box,
    notice.box,
    log,
    compose,
    foot
  );

  function probabilities() {
    return model.get('_settings').probabilities;
  }

  function isWriting() {
    return [...replies.values()].some(
      ({ reply }) => reply.state === 'waiting' || reply.state === 'answering'
    );
  }

  function canAsk() {
    const isEmpty =
      !question.value.trim() && !pictures.count && !pictures.isPending;
    const checked = pictures.isReady || pictures.isPending;
    return alive && !isEmpty && !isWriting() && checked;
  }

  function ask() {
    if (!canAsk()) {
      return;
    }
    if (pictures.isPending) {
      pictures.afterCheck(ask);
      return;
    }
    const request = `${idPrefix}-${++sentCount}`;
    sent = { request, text: question.value, pictures: pictures.take() };
    const keys = sent.pictures.map(({ key }) => key);
    send({ type: 'send', text: sent.text, pictures: keys, request });
    question.value = '';
    question.focus();
    drawCompose();
    log.scrollTop = log.scrollHeight;
  }

  function stop() {
    if (isWriting()) {
      send({ type: 'stop' });
    }
  }

  function onKey(/** @type {KeyboardEvent} */ event) {
    if (event.key === 'Escape' && isWriting()) {
      event.preventDefault();
      stop();
    } else if (
      event.key === 'Enter' &&
      (event.ctrlKey || event.metaKey) &&
      event.target === question
    ) {
      event.preventDefault();
      ask();
    }
  }

  /** Keeps Ctrl Enter from running the cell; see `suppressNotebookShortcuts`, which leaves keys with Ctrl alone. */
  function keepKeys(/** @type {KeyboardEvent} */ event) {
    if (event.target instanceof Node && el.contains(event.target)) {
      el.toggleAttribute(
        'data-lm-suppress-shortcuts',
        event.key === 'Enter' || event.key === 'Escape'
      );
    }
  }

  function drawTurns() {
    /** @type {ChatTurn[]} */
    const turns = model.get('_turns');
    sent?.pictures.forEach(({ key }) => store.forget(key));
    sent = null;
    replies.clear();
    for (const turn of turns) {
      for (const reply of turn.replies) {
        replies.set(reply.id, { turn: turn.id, reply: { ...reply } });
      }
    }
    keepEnd(() => {
      keepFocus(
        log,
        () =>
          drawKeyed(
            log,
            turns,
            ({ id }) => id,
            ({ id }) => {
              const view = turnView(send, id, store);
              views.set(id, view);
              return view.box;
            },
            (_, turn) => views.get(turn.id)?.show(turn, probabilities())
          ),
        () => question
      );
      log.hidden = !turns.length;
    });
    const missing = [...replies.values()].filter(
      ({ reply }) =>
        reply.state === 'done' && reply.text && !reply.tokens.length
    );
    settings.showMissing(probabilities() ? missing.length : 0);
    const known = new Set(turns.map(({ id }) => id));
    for (const [id, view] of views) {
      if (!known.has(id)) {
        view.close();
        views.delete(id);
      }
    }
    drawCompose();
  }

  function receive(
    /** @type {{type?: string, updates?: ReplyUpdate[], turn?: string, request?: string} & Partial<PictureMessage>} */ content
  ) {
    const { key = '', url = '', problem } = content;
    if (content.type === 'edit') {
      views.get(content.turn ?? '')?.edit();
    } else if (content.type === 'picture') {
      keepEnd(() => store.put(key, url));
    } else if (content.type === 'picture_checked') {
      pictures.receive({ key, problem });
    } else if (content.type === 'refused') {
      takeBack(content.request);
    } else if (content.type === 'updates') {
      keepEnd(() => showUpdates(content.updates ?? []));
    }
  }

  /** Puts a question that the kernel has refused back where it can be corrected. */
  function takeBack(/** @type {string | undefined} */ request) {
    if (sent?.request === request && sent) {
      question.value ||= sent.text;
      pictures.restore(sent.pictures);
      sent = null;
    }
  }

  /** Follows the end of the log, unless the reader has scrolled up. */
  function keepEnd(/** @type {() => void} */ change) {
    const atEnd =
      log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END;
    change();
    if (atEnd) {
      log.scrollTop = log.scrollHeight;
    }
  }

  function showUpdates(/** @type {ReplyUpdate[]} */ updates) {
    for (const update of updates) {
      const found = replies.get(update.id);
      if (!found || update.sequence > found.reply.sequence + 1) {
        send({ type: 'open' }); // an update was lost, or came before its reply
        return;
      }
      const { reply, turn } = found;
      if (update.sequence <= reply.sequence) {
        continue; // what the trait had already
      }
      reply.sequence = update.sequence;
      reply.state = update.state;
      reply.text += update.text;
      reply.thinking += update.thinking;
      reply.tokens = [...reply.tokens, ...update.tokens];
      views.get(turn)?.showReply(reply, probabilities());
    }
  }

  function drawCompose() {
    const count = model.get('_models').length;
    const writing = isWriting();
    setText(askLabel, ASK[Math.min(count, ASK.length - 1)]);
    setDisabled(sendButton, !canAsk());
    setDisabled(stopAll, !writing);
    setText(stopAll, count > 1 ? 'Stop all' : 'Stop');
    setDisabled(adding.open, !alive || count >= MAX_MODELS);
    setDisabled(newChat, !alive || writing || !model.get('_turns').length);
    for (const view of views.values()) {
      view.setBusy(writing || !alive);
    }
  }

  /** Loads the models while the first question is typed. */
  function onInput() {
    if (!started && (question.value || pictures.count)) {
      started = true;
      /** @type {ChatModel[]} */
      const models = model.get('_models');
      if (models.some(one => one.phase === 'stopped')) {
        send({ type: 'start' });
      }
    }
    drawCompose();
  }

  function drawModels() {
    /** @type {ChatModel[]} */
    const models = alive
      ? model.get('_models')
      : model.get('_models').map(withoutEngine);
    el.style.setProperty('--llf-models', String(Math.max(1, models.length)));
    el.classList.toggle('has-one', models.length === 1);
    head.show(models);
    const blind = models.find(one => one.blind);
    pictures.setBlind(blind ? `${blind.name} reads no pictures.` : '');
    showSettings();
    const engines = new Map(models.map(one => [one.engine, one]));
    const bytes = [...engines.values()].reduce(
      (sum, one) => sum + one.memory,
      0
    );
    setText(memory, bytes ? `Engine: ${formatBytes(bytes)}` : '');
    keepFocus(
      foot,
      () => {
        free.hidden = !bytes;
      },
      () => question
    );
    drawCompose();
  }

  function drawSettings() {
    if (probabilities() !== drawnProbabilities) {
      drawnProbabilities = probabilities();
      drawTurns();
    }
    showSettings();
  }

  function showSettings() {
    /** @type {ChatModel[]} */
    const models = model.get('_models');
    settings.show(
      model.get('_settings'),
      model.get('_errors'),
      models.some(one => one.thinks)
    );
  }

  function drawKept() {
    /** @type {{text: string, code: string}[]} */
    const sets = model.get('_kept');
    drawIfChanged(kept, sets, () =>
      sets.map(({ text, code }) => {
        const train = createButton(
          'Train on it…',
          () => void openForm(code),
          'llf-link'
        );
        train.setAttribute('aria-label', `Train on ${text}`);
        return h('span', {}, `${text} `, train);
      })
    );
  }

  /** Opens a form with a data set in a cell below; on a page that cannot, shows the code. */
  async function openForm(/** @type {string} */ code) {
    const { llfHost } = /** @type {{llfHost?: Page}} */ (globalThis);
    setText(note, await runInPageCell(code, llfHost));
  }

  function drawNote() {
    setText(
      note,
      alive
        ? model.get('_note')
        : `${KERNEL_LOST}. Run the cell again: the conversation comes back.`
    );
    notice.enable();
  }

  function drawCode() {
    notice.show(model.get('_code'));
  }

  /** Ends what waits for the kernel, and says that nothing can be asked before the cell is run again. */
  function showKernelLost() {
    alive = false;
    for (const { reply, turn } of replies.values()) {
      if (reply.state === 'waiting' || reply.state === 'answering') {
        reply.state = 'failed';
        reply.note = 'The kernel ended before the reply was complete.';
        views.get(turn)?.showReply(reply, probabilities());
      }
    }
    notice.show([]);
    drawModels();
    drawNote();
  }

  question.addEventListener('input', onInput);
  el.addEventListener('keydown', onKey);
  window.addEventListener('keydown', keepKeys, true);
  /** @type {[string, (...values: any[]) => void][]} */
  const listeners = [
    ['change:_turns', drawTurns],
    ['change:_models', drawModels],
    ['change:_settings', drawSettings],
    ['change:_errors', drawSettings],
    ['change:_kept', drawKept],
    ['change:_note', drawNote],
    ['change:_code', drawCode],
    ['msg:custom', receive]
  ];
  for (const [event, act] of listeners) {
    model.on(event, act);
  }
  drawTurns();
  drawModels();
  drawSettings();
  drawKept();
  drawNote();
  drawCode();
  log.scrollTop = log.scrollHeight;
  send({ type: 'open', keeps_view: 'llfHost' in globalThis }); // a reply may be under way whose text the trait lacks
  const endWait = onKernelLost(model, showKernelLost);
  return () => {
    endWait();
    notice.close();
    el.removeEventListener('keydown', onKey);
    window.removeEventListener('keydown', keepKeys, true);
    for (const view of views.values()) {
      view.close();
    }
    for (const [event, act] of listeners) {
      model.off(event, act);
    }
  };
}

/** Returns a model as it is after its kernel, and with that its engine, has ended. @param {ChatModel} model */
function withoutEngine(model) {
  return {
    ...model,
    phase: /** @type {const} */ ('stopped'),
    reason: 'Ended with its kernel',
    memory: 0
  };
}

export default { initialize, render };
