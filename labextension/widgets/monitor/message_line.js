import { createButton } from '../shared/buttons.js';
import { messageBox } from '../shared/message.js';
import { textWithCode } from '../../src/text_with_code';

/** @typedef {{level: 'error' | 'warn' | 'note' | '', text: string, actions?: {label: string, change: object}[]}} Message */

/**
 * Draws a message about a run.
 * @param {Message} message
 * @param {(change: object) => void} [onAction] called with the change of a clicked button
 */
export function messageLine({ level, text, actions = [] }, onAction) {
  const buttons = onAction
    ? actions.map(({ label, change }) =>
        createButton(label, () => onAction(change))
      )
    : [];
  return messageBox(level || 'note', textWithCode(text), { buttons });
}
