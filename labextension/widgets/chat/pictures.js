// Pictures of questions: those of the conversation, and those that are added to the next question.

import { createButton, setDisabled } from '../shared/buttons.js';
import { drawKeyed, h, keepFocus, setText, uniqueId } from '../shared/dom.js';

/** @import { PictureMessage, Send, ShownPicture } from './types' */

/** Only bytes of these formats are ever the source of an image: no address, and no SVG, which can have scripts. */
const SOURCE = /^data:image\/(?:png|jpeg|webp|gif);base64,/;
const ACCEPTED = 'image/png,image/jpeg,image/webp,image/gif';

/**
 * The pictures that the page has, by key. The kernel sends each one once, when it is first shown.
 * @param {Send} send
 */
export function pictureStore(send) {
  /** @type {Map<string, string>} */
  const known = new Map();
  /** @type {Map<string, ((url: string) => void)[]>} */
  const waiting = new Map();

  return {
    put(/** @type {string} */ key, /** @type {string} */ url) {
      known.set(key, url);
      for (const fill of waiting.get(key) ?? []) {
        fill(url);
      }
      waiting.delete(key);
    },
    forget(/** @type {string} */ key) {
      known.delete(key);
    },
    /** Returns the element of a picture. */
    element(/** @type {ShownPicture} */ { key, name }) {
      const box = h('span', { class: 'llf-Picture' });
      const fill = (/** @type {string} */ url) =>
        box.replaceChildren(
          SOURCE.test(url)
            ? h('img', { src: url, alt: name })
            : h(
                'span',
                { class: 'llf-secondary llf-small' },
                `${name} cannot be shown.`
              )
        );
      const url = known.get(key);
      if (url !== undefined) {
        fill(url);
      } else if (waiting.has(key)) {
        waiting.get(key)?.push(fill);
      } else {
        waiting.set(key, [fill]);
        send({ type: 'show_picture', key });
      }
      return box;
    }
  };
}

/**
 * Creates a list of pictures.
 * @param {ReturnType<typeof pictureStore>} store
 * @param {string} label name of the list
 * @param {(key: string) => void} onRemove
 * @param {() => HTMLElement} fallback gets the focus when the last picture is removed
 */
export function pictureList(store, label, onRemove, fallback) {
  const box = h('ul', {
    class: 'llf-Pictures',
    'aria-label': label,
    hidden: true
  });
  return {
    box,
    /** Shows pictures. @param {ShownPicture[]} pictures @param {boolean} removable */
    show(pictures, removable) {
      keepFocus(
        box,
        () => {
          drawKeyed(
            box,
            pictures,
            ({ key }) => key,
            picture => {
              const remove = createButton(
                'Remove',
                () => onRemove(picture.key),
                'llf-link'
              );
              remove.setAttribute('aria-label', `Remove ${picture.name}`);
              return h('li', {}, store.element(picture), remove);
            },
            node => {
              /** @type {HTMLElement} */ (node.lastElementChild).hidden =
                !removable;
            }
          );
          box.hidden = !pictures.length;
        },
        () => box.querySelector('button') ?? fallback()
      );
    }
  };
}

/**
 * Creates what adds pictures to the next question: a button, paste and drop, and the list of those that were added. The
 * kernel checks each of them.
 * @param {object} options
 * @param {Send} options.send
 * @param {ReturnType<typeof pictureStore>} options.store
 * @param {() => number} options.maxBytes a larger file is not read
 * @param {HTMLTextAreaElement} options.question takes pasted pictures
 * @param {HTMLElement} options.target takes dropped ones
 * @param {() => void} options.onChange
 */
export function addedPictures({
  send,
  store,
  maxBytes,
  question,
  target,
  onChange
}) {
  /** @type {(ShownPicture & {checked: boolean})[]} */
  let added = [];
  let blind = '';
  let reading = 0;
  /** @type {(() => void) | null} */
  let onceChecked = null;
  const file = h('input', {
    type: 'file',
    accept: ACCEPTED,
    multiple: true,
    hidden: true,
    onchange: () => {
      addFiles([...(file.files ?? [])]);
      file.value = ''; // the same file may be chosen again
    }
  });
  const button = createButton('Add picture…', () => file.click(), 'llf-link');
  const list = pictureList(
    store,
    'Pictures of the question',
    remove,
    () => question
  );
  const status = h('div', { class: 'llf-small', role: 'status' });
  const box = h('div', { class: 'llf-Chat-added' }, list.box, status, file);

  function show() {
    list.show(added, true);
    setDisabled(button, Boolean(blind));
    button.title = blind || 'PNG, JPEG, WebP or GIF; also by paste or drop';
  }

  function draw() {
    show();
    onChange();
    if (onceChecked && !isPending()) {
      const call = onceChecked;
      onceChecked = null;
      setText(status, '');
      call();
    }
  }

  function isPending() {
    return !blind && (reading > 0 || added.some(({ checked }) => !checked));
  }

  /** Says why a picture is not added; a question that waits for it is not sent. */
  function refuse(/** @type {string} */ problem) {
    onceChecked = null;
    setText(status, problem);
  }

  function remove(/** @type {string} */ key) {
    added = added.filter(one => one.key !== key);
    store.forget(key);
    send({ type: 'remove_picture', key });
    setText(status, '');
    draw();
  }

  async function addFiles(/** @type {File[]} */ files) {
    if (blind && files.length) {
      setText(status, blind);
      return;
    }
    if (!onceChecked) {
      setText(status, '');
    }
    reading += files.length;
    for (const one of files) {
      const key = uniqueId('added');
      const beside = added.map(({ key }) => key);
      const name = one.name || 'Picture';
      /** @type {string | number} */
      let picture = one.size;
      if (one.size <= maxBytes()) {
        try {
          picture = await dataUrl(one);
        } catch {
          reading--;
          refuse(`${name} cannot be read.`); // a folder, for one
          draw();
          continue;
        }
        store.put(key, picture);
        added.push({ key, name, checked: false });
      }
      reading--;
      draw();
      send({ type: 'add_picture', key, name, picture, beside });
    }
  }

  function onPaste(/** @type {ClipboardEvent} */ event) {
    const files = [...(event.clipboardData?.files ?? [])];
    // Office programs put a picture beside the text that was copied.
    if (files.length && !event.clipboardData?.types.includes('text/plain')) {
      event.preventDefault();
      addFiles(files);
    }
  }

  function onDrag(/** @type {DragEvent} */ event) {
    if (event.dataTransfer?.types.includes('Files')) {
      event.preventDefault();
      event.stopPropagation();
      target.classList.toggle('is-dropping', event.type === 'dragover');
      if (event.type === 'drop') {
        addFiles([...event.dataTransfer.files]);
      }
    }
  }

  question.addEventListener('paste', onPaste);
  for (const type of /** @type {const} */ (['dragover', 'dragleave', 'drop'])) {
    target.addEventListener(type, onDrag);
  }
  show();
  return {
    box,
    button,
    /** Says why a model takes no pictures; empty if all may. */
    setBlind(/** @type {string} */ sentence) {
      if (sentence !== blind) {
        blind = sentence;
        setText(status, added.length ? blind : '');
        draw();
      }
    },
    get count() {
      return added.length;
    },
    get isReady() {
      return !(blind && added.length) && added.every(({ checked }) => checked);
    },
    /** Whether a picture is still being read or checked. */
    get isPending() {
      return isPending();
    },
    /** Calls `call` when all pictures are checked; never, if one of them is refused. */
    afterCheck(/** @type {() => void} */ call) {
      onceChecked = call;
      setText(status, 'The question is sent when its pictures are checked.');
    },
    /** Returns the pictures, and leaves none. */
    take() {
      const taken = added;
      added = [];
      setText(status, '');
      draw();
      return taken;
    },
    /** Puts back what `take` has returned. */
    restore(/** @type {ReturnType<typeof this.take>} */ taken) {
      added = [...taken, ...added];
      draw();
    },
    receive(/** @type {PictureMessage} */ { key, problem = '' }) {
      const found = added.find(one => one.key === key);
      if (found && !problem) {
        found.checked = true;
        if (!onceChecked) {
          setText(status, blind);
        }
      } else if (problem) {
        added = added.filter(one => one !== found);
        store.forget(key);
        refuse(`${onceChecked ? '' : status.textContent} ${problem}`.trim());
      }
      draw();
    }
  };
}

/**
 * Reads a file as a data URL.
 * @param {File} file
 * @returns {Promise<string>}
 */
function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
