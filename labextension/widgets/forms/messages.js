// The error, warning and note messages of the form.

import { textWithCode } from '../../src/text_with_code';
import { createButton } from '../shared/buttons.js';
import { copyButton } from '../shared/clipboard.js';
import { drawIfChanged } from '../shared/dom.js';
import { messageBox } from '../shared/message.js';

/**
 * @typedef {{ level: 'error' | 'warning' | 'note', text: string, fixes: string[], copy?: string }} Message
 */

/**
 * Draws messages into `el` if they have changed, so that a screen reader announces each one only once.
 * @param {HTMLElement} el
 * @param {Message[]} messages
 * @param {(message: number, fix: number) => void} onFix
 * @param {() => HTMLElement} [fallback] gets the focus if the button of a fix is gone
 */
export function drawMessages(el, messages, onFix, fallback) {
  const make = () =>
    messages.map((message, index) => {
      const buttons = message.fixes.map((label, fix) =>
        createButton(label, () => onFix(index, fix))
      );
      const { copy } = message;
      if (copy) {
        const label = 'Copy the command';
        buttons.push(copyButton(() => copy, { label, className: '' }));
      }
      return messageBox(
        message.level === 'warning' ? 'warn' : message.level,
        textWithCode(message.text),
        { buttons }
      );
    });
  drawIfChanged(el, messages, make, fallback);
  el.hidden = messages.length === 0;
}

/**
 * Says that a chosen file cannot be read, for example because it was removed meanwhile.
 * @param {HTMLElement} el
 * @param {string} name of the file
 * @param {unknown} error of reading it; one that a browser does not throw for a file is thrown again
 */
export function drawUnreadableFile(el, name, error) {
  if (!(error instanceof DOMException)) {
    throw error;
  }
  const text = `${name} cannot be read. Choose it again, or another file.`;
  drawMessages(el, [{ level: 'error', text, fixes: [] }], () => undefined);
}
