// Shows foreign Python code before it runs with the user's permissions.

import { foreignCodeElements } from '../../src/foreign_code';
import { untranslated } from '../../src/untranslated';
import { createButton, setDisabled } from './buttons.js';
import { h, keepFocus, setText } from './dom.js';

/** @import { IForeignCode } from '../../src/api' */

const SLOW_KERNEL_MS = 5000;

/**
 * Creates the notice that shows code before it may run, with the button that allows it. While the code stays the same,
 * the notice stays in place. A click shows at once that it was received. If the notice is still there after some
 * seconds, the button can be clicked again, because a message to a kernel can be lost.
 * @param {object} options
 * @param {string} options.purpose a sentence that says why the code would run
 * @param {string} options.label of the button that allows the code
 * @param {string} options.progress shown after a click on it
 * @param {() => void} options.onAllow
 * @param {() => void} [options.onCancel] called by a *Cancel* button; without it, there is none
 * @param {() => HTMLElement} [options.fallback] gets the focus when the notice disappears
 */
export function codeNotice({
  purpose,
  label,
  progress,
  onAllow,
  onCancel,
  fallback
}) {
  const box = h('div');
  const allow = createButton(
    label,
    () => {
      setWaiting(true);
      onAllow();
    },
    onCancel ? 'llf-danger' : undefined
  );
  const cancel = onCancel ? createButton('Cancel', onCancel) : null;
  const status = h('span', {
    class: 'llf-secondary llf-small',
    role: 'status'
  });
  let drawn = '[]';
  let timer = 0;

  function setWaiting(/** @type {boolean} */ on) {
    clearTimeout(timer);
    setDisabled(allow, on);
    setText(status, on ? progress : '');
    if (on) {
      timer = setTimeout(() => {
        setDisabled(allow, false);
        setText(
          status,
          'The kernel has not answered yet. If no cell is running, click again.'
        );
      }, SLOW_KERNEL_MS);
    }
  }

  return {
    box,
    /** Shows the code, as `llf_core.runs.foreign_code.ForeignCode.json` makes it; without code the notice disappears. @param {IForeignCode[]} code */
    show(code) {
      const text = JSON.stringify(code);
      if (drawn === text) {
        return;
      }
      drawn = text;
      setWaiting(false);
      keepFocus(
        box,
        () =>
          box.replaceChildren(
            ...(code.length
              ? [
                  noticeSection(code, purpose, [
                    allow,
                    ...(cancel ? [cancel] : []),
                    status
                  ])
                ]
              : [])
          ),
        fallback
      );
    },
    /** Lets the button be clicked again, after the kernel has answered that the code could not be allowed. */
    enable: () => setWaiting(false),
    /** Moves the focus to the button that refuses the code. */
    focus: () => (cancel ?? allow).focus(),
    close: () => clearTimeout(timer)
  };
}

/**
 * Draws the source of the code, as text, with the buttons that allow or refuse it.
 * @param {IForeignCode[]} code
 * @param {string} purpose a sentence that says why the code would run
 * @param {HTMLElement[]} controls
 */
function noticeSection(code, purpose, controls) {
  return h(
    'section',
    {
      class: 'llf-ForeignCode',
      role: 'group',
      'aria-label': 'Code to review'
    },
    h(
      'p',
      {},
      h('b', {}, 'Untrusted Python code. '),
      `${purpose} It has not been executed. Review it first: it runs with your permissions.`
    ),
    ...code.map(one => h('div', {}, ...foreignCodeElements(one, untranslated))),
    h('div', { class: 'llf-row' }, ...controls)
  );
}
