// A reply of a model: its text, what can be done with it, and how fast it came.

import { createButton, setDisabled } from '../shared/buttons.js';
import { copyButton } from '../shared/clipboard.js';
import { drawIfChanged, h, keepFocus, setText } from '../shared/dom.js';
import { messageBox } from '../shared/message.js';
import { callsOf } from './calls.js';
import { keepControls } from './keep_controls.js';
import { drawMarkdown, typesetMath } from './markdown.js';
import { tokensOf } from './tokens.js';
import { versionSwitch } from './versions.js';

/** @import { ChatReply, Send } from './types' */

const DRAW_MS = 100; // ms between two drawings of a text that is being written

/**
 * Creates the element of a reply.
 * @param {Send} send
 * @param {string} turn id of the question
 * @param {string} model name of the model
 */
export function replyView(send, turn, model) {
  /** @type {ChatReply | null} */
  let shown = null;
  let timer = 0;
  let drawnAt = 0;
  const thinkingText = h('div', { class: 'llf-Thinking' });
  const thinkingLabel = h('summary', {}, 'Thinking');
  const thinking = h('details', { hidden: true }, thinkingLabel, thinkingText);
  const text = h('div', { class: 'llf-Markdown' });
  const calls = h('div');
  const problem = h('div');
  const status = h('span');
  const stop = createButton(
    'Stop',
    () => send({ type: 'stop', reply: shown?.id }),
    'llf-link'
  );
  const again = createButton(
    'Again',
    () => send({ type: 'again', turn, model }),
    'llf-link'
  );
  const copy = copyButton(() => shown?.text ?? '', { name: `Copy: ${model}` });
  const versions = versionSwitch(`reply of ${model}`, step =>
    send({ type: 'reply_version', turn, model, step })
  );
  const keep = keepControls(send, turn, model);
  const tokens = h('div', { hidden: true });
  const footer = h(
    'footer',
    {},
    status,
    versions.box,
    stop,
    again,
    copy,
    keep.buttons
  );
  for (const button of [stop, again]) {
    button.setAttribute('aria-label', `${button.textContent}: ${model}`);
  }
  const box = h(
    'article',
    { class: 'llf-Reply', 'aria-label': model, tabindex: '-1' },
    h('p', { class: 'llf-Reply-model llf-secondary llf-small' }, model),
    thinking,
    calls,
    text,
    tokens,
    problem,
    keep.corrected,
    footer,
    keep.form
  );

  function drawText() {
    timer = 0;
    drawnAt = performance.now();
    if (shown) {
      setText(thinkingText, shown.thinking);
      drawMarkdown(text, shown.text);
      if (shown.state === 'done') {
        typesetMath(text);
      }
    }
  }

  return {
    box,
    /**
     * Shows a reply, or what has changed in it.
     * @param {ChatReply} reply
     * @param {string[]} others models that have answered this question in other words
     * @param {boolean} probabilities whether tokens with their probabilities take the place of the text
     */
    show(reply, others, probabilities) {
      const writing = reply.state === 'waiting' || reply.state === 'answering';
      shown = reply;
      box.setAttribute('aria-busy', String(writing));
      box.classList.toggle('is-writing', writing);
      clearTimeout(timer);
      const wait = drawnAt + DRAW_MS - performance.now();
      if (writing && wait > 0) {
        timer = setTimeout(drawText, wait);
      } else {
        drawText();
      }
      thinking.hidden = !reply.thinking;
      setText(
        thinkingLabel,
        writing && !reply.text ? 'Thinking…' : 'What the model thought'
      );
      drawIfChanged(
        problem,
        [reply.error, reply.question, reply.note],
        () => problemOf(reply, fix => send({ type: 'fix', turn, model, fix })),
        () => box
      );
      setText(
        status,
        writing
          ? reply.state === 'waiting'
            ? 'Waiting for the first token…'
            : 'Answering…'
          : reply.footer
      );
      status.hidden = !status.textContent;
      versions.show(reply.version);
      keep.show(reply, others);
      drawIfChanged(calls, [reply.calls, writing], () =>
        callsOf(reply.calls, !writing, results =>
          send({ type: 'results', reply: reply.id, results })
        )
      );
      const withTokens = probabilities && !writing && reply.tokens.length > 0;
      text.hidden = withTokens;
      tokens.hidden = !withTokens;
      if (withTokens) {
        drawIfChanged(tokens, reply.tokens, () => tokensOf(reply.tokens));
      }
      keepFocus(
        footer,
        () => {
          stop.hidden = !writing;
          again.hidden = writing;
          copy.hidden = writing || !reply.text;
          versions.disable(writing);
        },
        () => (writing ? stop : again)
      );
      setDisabled(stop, false);
    },
    close: () => clearTimeout(timer)
  };
}

/** Draws why a reply is missing or incomplete, or what it waits for, and what can be done. */
function problemOf(
  /** @type {ChatReply} */ { error, question, note },
  /** @type {(fix: string) => void} */ onFix
) {
  const said = error ?? question;
  return [
    ...(said
      ? [
          messageBox(error ? 'error' : 'note', [said.message], {
            buttons: said.fixes.map(({ action, label }) =>
              createButton(label, () => onFix(action))
            )
          })
        ]
      : []),
    ...(note ? [h('p', { class: 'llf-secondary llf-small' }, note)] : [])
  ];
}
