// A question, and the replies of all models to it.

import { createButton, setDisabled } from '../shared/buttons.js';
import { drawKeyed, h, keepFocus, setText } from '../shared/dom.js';
import { pictureList } from './pictures.js';
import { replyView } from './reply.js';
import { versionSwitch } from './versions.js';

/** @import { ChatReply, ChatTurn, Send, ShownPicture } from './types' */

/** @type {WeakMap<Element, ReturnType<typeof replyView>>} */
const replyViews = new WeakMap();

/**
 * Creates the element of a question with its replies.
 * @param {Send} send
 * @param {string} id of the question
 * @param {ReturnType<typeof import('./pictures.js').pictureStore>} store
 */
export function turnView(send, id, store) {
  const question = h('p', { class: 'llf-Question-text' });
  /** @type {ShownPicture[]} */
  let pictures = [];
  /** @type {ShownPicture[]} */
  let kept = [];
  const edit = createButton('Edit', startEditing, 'llf-link');
  edit.setAttribute('aria-label', 'Edit the question');
  const versions = versionSwitch('question', step =>
    send({ type: 'version', turn: id, step })
  );
  const field = h('textarea', {
    rows: '3',
    'aria-label': 'New text of the question',
    onkeydown: (/** @type {KeyboardEvent} */ event) => {
      if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        resend();
      } else if (event.key === 'Escape') {
        event.stopPropagation();
        endEditing();
      }
    }
  });
  const list = pictureList(
    store,
    'Pictures of the question',
    key => {
      kept = kept.filter(one => one.key !== key);
      list.show(kept, true);
    },
    () => field
  );
  const again = createButton('Send as a new version', resend, 'llf-primary');
  const read = h(
    'div',
    { class: 'llf-Question' },
    question,
    h('span', { class: 'llf-Question-actions' }, versions.box, edit)
  );
  const form = h(
    'div',
    { class: 'llf-Question-form', hidden: true },
    field,
    h('div', { class: 'llf-row' }, again, createButton('Cancel', endEditing))
  );
  const replies = h('div', { class: 'llf-Replies' });
  const box = h(
    'div',
    {
      class: 'llf-Turn-row',
      role: 'group',
      'aria-label': 'Question and replies'
    },
    h('span', { class: 'llf-secondary llf-Turn-who' }, 'You'),
    h('div', { class: 'llf-Turn-question' }, list.box, read, form),
    replies
  );

  function startEditing() {
    field.value = question.textContent ?? '';
    setEditing(true);
    field.focus();
  }

  function endEditing() {
    setEditing(false);
    edit.focus();
  }

  function setEditing(/** @type {boolean} */ on) {
    form.hidden = !on;
    read.hidden = on;
    kept = pictures;
    list.show(kept, on);
  }

  function resend() {
    const isEmpty = !field.value.trim() && !kept.length;
    if (!isEmpty && again.getAttribute('aria-disabled') !== 'true') {
      const keys = kept.map(({ key }) => key);
      send({ type: 'edit', turn: id, text: field.value, pictures: keys });
      endEditing();
    }
  }

  /** @type {ChatReply[]} */
  let complete = [];

  function showReply(
    /** @type {ChatReply} */ reply,
    /** @type {boolean} */ probabilities
  ) {
    for (const node of replies.children) {
      if (node.getAttribute('aria-label') === reply.model) {
        show(node, reply, probabilities);
      }
    }
  }

  function show(
    /** @type {Element} */ node,
    /** @type {ChatReply} */ reply,
    /** @type {boolean} */ probabilities
  ) {
    const others = complete
      .filter(({ model, text }) => model !== reply.model && text !== reply.text)
      .map(({ model }) => model);
    replyViews.get(node)?.show(reply, others, probabilities);
  }

  return {
    box,
    edit: startEditing,
    showReply,
    /** Shows a question. @param {ChatTurn} turn @param {boolean} probabilities */
    show(turn, probabilities) {
      complete = turn.replies.filter(
        ({ state, text }) => state === 'done' && text
      );
      setText(question, turn.text);
      const keys = turn.pictures.join();
      if (keys !== pictures.map(({ key }) => key).join()) {
        pictures = turn.pictures.map((key, place) => ({
          key,
          name: `Picture ${place + 1} of the question`
        }));
        kept = pictures;
        list.show(kept, !form.hidden);
      }
      versions.show(turn.version);
      keepFocus(replies, () =>
        drawKeyed(
          replies,
          turn.replies,
          ({ model }) => model,
          ({ model }) => {
            const view = replyView(send, id, model);
            replyViews.set(view.box, view);
            return view.box;
          },
          (node, reply) => show(node, reply, probabilities)
        )
      );
    },
    /** A question cannot be asked again while a reply is being written. */
    setBusy(/** @type {boolean} */ busy) {
      setDisabled(again, busy);
      versions.disable(busy);
    },
    close() {
      for (const node of replies.children) {
        replyViews.get(node)?.close();
      }
    }
  };
}
