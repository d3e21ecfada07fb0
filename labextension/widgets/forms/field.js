import { textWithCode } from '../../src/text_with_code';
import { createButton, setDisabled } from '../shared/buttons.js';
import { drawIfChanged, h, uniqueId } from '../shared/dom.js';
import { Completion } from './completion.js';
import { drawMessages, drawUnreadableFile } from './messages.js';
import { upload, ACCEPTED_TYPES } from './upload.js';

/** @import { Model } from '../shared/model' */
/** @import { Message } from './messages.js' */

/**
 * @typedef {object} Row One field as the kernel describes it.
 * @property {string} key
 * @property {string} label
 * @property {string} unit
 * @property {string} help one sentence
 * @property {string} tooltip key, help and range
 * @property {'number' | 'text' | 'lines' | 'choice' | 'check'} kind
 * @property {string} text
 * @property {string} placeholder
 * @property {[string, string, string, string][]} choices value, line in the list, why it cannot be chosen, or nothing,
 *   and the label while the list is closed
 * @property {boolean} explained whether the help is always shown
 * @property {string[]} suggestions for a text field
 * @property {boolean} completes whether the kernel completes what is typed
 * @property {string} group heading above the field
 * @property {boolean} wide whether the control also takes the column of the unit
 * @property {boolean} long whether the field takes a whole row, for a name or path
 * @property {boolean} upload whether the field has an *Upload…* button
 * @property {boolean} changed
 * @property {Message[]} messages
 */

const MAX_NUMBER_LENGTH = 6; // characters that fit into the box of a number where it is narrowest
const OPENING_KEYS = [' ', 'Enter', 'ArrowDown', 'ArrowUp', 'F4']; // those that open a list in some browser

/** One field: label, control, unit, help, and the messages below. It is updated in place, so it keeps the focus. */
export class Field {
  /**
   * @param {Row} row
   * @param {(key: string, text: string) => void} onEdit
   * @param {(key: string, message: number, fix: number) => void} onFix
   * @param {Model} model sends the pieces of an upload
   * @param {(key: string, text: string) => void} onType called with each key press in a text field
   */
  constructor(row, onEdit, onFix, model, onType) {
    this.key = row.key;
    this.kind = row.kind;
    this.onFix = onFix;
    const id = uniqueId(`llf-${row.key}`);
    this.control = this.makeControl(row, id);
    this.label = h('label', { for: id }, row.label);
    this.unit = h('span', { class: 'llf-unit', id: `${id}-unit` }, row.unit);
    this.help = h(
      'div',
      { class: 'llf-Field-help', id: `${id}-help` },
      ...textWithCode(row.help)
    );
    this.messages = h('div', {
      class: 'llf-Field-messages',
      id: `${id}-messages`
    });
    this.node = row.kind === 'check' ? this.checkNode() : this.fieldNode(row);
    this.node.title = row.tooltip;
    if (row.upload) {
      this.addUpload(row, model);
    }
    /** @type {Completion | null} */
    this.completion = null;
    if (row.completes) {
      const input = /** @type {HTMLInputElement} */ (this.control);
      this.completion = new Completion(
        input,
        row.key,
        `Known values of ${row.label}`,
        model
      );
      this.control.after(this.completion.list);
      this.node.classList.add('has-completion');
    }
    this.sent = row.text;
    this.control.addEventListener('change', () => {
      this.sent = this.value();
      onEdit(this.key, this.sent);
    });
    this.control.addEventListener('input', () => {
      if (row.kind !== 'check' && row.kind !== 'choice') {
        onType(this.key, this.value());
      }
    });
  }

  /** Removes the listeners for kernel messages. */
  dispose() {
    this.completion?.dispose();
  }

  /** Creates the control that fits the kind of the field. @param {Row} row @param {string} id */
  makeControl(row, id) {
    const common = { id, 'data-llf-key': row.key };
    if (row.kind === 'choice') {
      const select = h('select', common);
      select.addEventListener('pointerdown', () => showLines(select, true));
      select.addEventListener(
        'keydown',
        event => OPENING_KEYS.includes(event.key) && showLines(select, true)
      );
      for (const closing of ['change', 'blur']) {
        select.addEventListener(closing, () => showLines(select, false));
      }
      return select;
    }
    if (row.kind === 'check') {
      return h('input', { ...common, type: 'checkbox' });
    }
    if (row.kind === 'lines') {
      return h('textarea', { ...common, rows: '2', spellcheck: 'false' });
    }
    const number =
      row.kind === 'number' ? { inputmode: 'decimal', class: 'llf-num' } : {};
    return h('input', {
      ...common,
      ...number,
      type: 'text',
      spellcheck: 'false',
      autocomplete: 'off'
    });
  }

  /** Adds the *Upload…* button. @param {Row} row @param {Model} model */
  addUpload(row, model) {
    const file = h('input', {
      type: 'file',
      accept: ACCEPTED_TYPES,
      hidden: '',
      tabindex: '-1',
      'aria-hidden': 'true'
    });
    const choose = createButton('Upload…', () => file.click());
    choose.setAttribute('aria-label', `Upload a file for ${row.label}`);
    choose.title =
      'JSON, JSONL, CSV, TSV, text, Parquet or Arrow; it is saved in the folder of the notebook';
    file.addEventListener('change', async () => {
      const chosen = file.files?.[0];
      if (!chosen) {
        return;
      }
      setDisabled(choose, true);
      try {
        await upload(
          model,
          row.key,
          chosen,
          text => (choose.textContent = text)
        );
      } catch (error) {
        drawUnreadableFile(this.messages, chosen.name, error);
      } finally {
        setDisabled(choose, false);
        choose.textContent = 'Upload…';
        file.value = '';
      }
    });
    this.node.classList.add('has-action');
    this.control.after(choose, file);
  }

  /** Creates the layout of a check box. */
  checkNode() {
    this.label.prepend(this.control);
    return h(
      'div',
      { class: 'llf-Check' },
      h('div', {}, this.label, this.help)
    );
  }

  /** Creates the layout of all other kinds. @param {Row} row */
  fieldNode(row) {
    const classes = ['llf-Field'];
    if (row.wide) {
      classes.push('is-wide');
    }
    if (row.kind === 'lines') {
      classes.push('is-full');
    } else if (row.long) {
      classes.push('is-row');
    }
    const node = h(
      'div',
      { class: classes.join(' ') },
      this.label,
      this.control
    );
    if (!row.wide) {
      node.append(this.unit);
    }
    if (row.suggestions.length) {
      const list = h('datalist', { id: `${this.control.id}-suggestions` });
      list.append(...row.suggestions.map(value => h('option', { value })));
      this.control.setAttribute('list', list.id);
      node.append(list);
    }
    node.append(this.help);
    return node;
  }

  /** Returns the value as text; that of a check box is `true` or `false`. @returns {string} */
  value() {
    return this.kind === 'check'
      ? String(/** @type {HTMLInputElement} */ (this.control).checked)
      : this.control.value;
  }

  /** Shows the kernel's state of the field. @param {Row} row @param {boolean} explain whether to show the help */
  update(row, explain) {
    this.setValue(row);
    const worst = ['error', 'warning'].find(level =>
      row.messages.some(message => message.level === level)
    );
    this.node.classList.toggle('is-changed', row.changed);
    this.node.classList.toggle('has-error', worst === 'error');
    this.node.classList.toggle('has-warn', worst === 'warning');
    const explained = explain || row.explained;
    this.help.hidden = !explained;
    drawMessages(
      this.messages,
      row.messages,
      (message, fix) => this.onFix(this.key, message, fix),
      () => this.control
    );
    this.control.setAttribute('aria-invalid', String(worst === 'error'));
    const described = [
      row.unit && !row.wide ? this.unit.id : '',
      explained ? this.help.id : '',
      row.messages.length ? this.messages.id : ''
    ];
    const ids = described.filter(Boolean).join(' ');
    if (ids) {
      this.control.setAttribute('aria-describedby', ids);
    } else {
      this.control.removeAttribute('aria-describedby');
    }
  }

  /** Shows the kernel's value, unless the user is typing another one. @param {Row} row */
  setValue(row) {
    const control = this.control;
    drawIfChanged(this.help, row.help, () => textWithCode(row.help));
    if (this.kind === 'choice') {
      const known = row.choices.some(([value]) => value === row.text);
      const choices = known
        ? row.choices
        : [...row.choices, [row.text, row.text, '', row.text]];
      drawIfChanged(control, choices, () =>
        choices.map(([value, line, reason, label]) =>
          reason
            ? h(
                'option',
                { value, title: reason, disabled: '' },
                `${label}: not available. ${reason}`
              )
            : h(
                'option',
                { value, 'data-line': line, 'data-label': label },
                line
              )
        )
      );
    } else if (this.kind === 'check') {
      /** @type {HTMLInputElement} */ (control).checked = row.text === 'true';
      return;
    } else {
      /** @type {HTMLInputElement} */ (control).placeholder = row.placeholder;
      this.node.classList.toggle(
        'has-long-unset',
        this.kind === 'number' && row.placeholder.length > MAX_NUMBER_LENGTH
      );
    }
    const typing =
      document.activeElement === control && control.value !== this.sent;
    if (!typing || this.kind === 'choice') {
      if (control.value !== row.text) {
        control.value = row.text;
      }
      this.sent = row.text;
    }
    if (this.kind === 'choice') {
      showLines(/** @type {HTMLSelectElement} */ (control), false);
    }
  }
}

/**
 * Shows what a closed list has room for: the label of the chosen option instead of its line, which would be cut.
 * @param {HTMLSelectElement} select
 * @param {boolean} open whether the list is about to open
 */
function showLines(select, open) {
  for (const option of select.options) {
    const { line, label } = option.dataset;
    const text = open || !option.selected ? line : label;
    if (text && option.textContent !== text) {
      option.textContent = text;
    }
  }
}
