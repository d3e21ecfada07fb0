import { textWithCode } from '../../src/text_with_code';
import { createButton, setDisabled } from '../shared/buttons.js';
import { drawIfChanged, h, setText, uniqueId } from '../shared/dom.js';
import { drawMessages } from './messages.js';
import { pendingStart } from './pending_start.js';

/** @import { Context } from '../shared/model' */

const TYPING_DELAY_MS = 300;

/**
 * @typedef {{ key: string, label: string, text: string, hint: string }} Varied
 * @typedef {[string, [string, string][]][]} Offered section, and key and label of its fields
 */

/**
 * Draws the form of a sweep: a table of fields and values, the number of runs, and the button that starts them.
 * @param {Context} context
 */
export function sweepForm({ model, el }) {
  const idPrefix = uniqueId('llf-sweep');
  let focusRow = -1;
  const toggle = createButton(
    'Sweep over several values…',
    () => {
      model.set('_expanded', !model.get('_expanded'));
      model.save_changes();
    },
    'llf-link'
  );
  toggle.setAttribute('aria-controls', idPrefix);
  const body = h('tbody', {});
  const table = h(
    'table',
    { class: 'llf-Table llf-Sweep-table' },
    h(
      'thead',
      {},
      h(
        'tr',
        {},
        h('th', { scope: 'col' }, 'Field'),
        h('th', { scope: 'col' }, 'Values, separated by commas'),
        h('td', {})
      )
    ),
    body
  );
  const add = createButton(
    'Combine with another field',
    () => {
      focusRow = model.get('_rows').length;
      model.send({ type: 'add' });
    },
    'llf-link'
  );
  const start = createButton(
    'Start',
    () => pending.send({ type: 'start', runs: model.get('_runs') }),
    'llf-primary'
  );
  const status = h('p', { id: `${idPrefix}-why`, role: 'status' });
  start.setAttribute('aria-describedby', status.id);
  const again = createButton(
    'Start another sweep',
    () => model.send({ type: 'again' }),
    'llf-link'
  );
  const messages = h('div', { class: 'llf-Start-messages' });
  const panel = h(
    'div',
    { id: idPrefix, class: 'llf-Sweep-body' },
    table,
    h('div', {}, add),
    h('div', { class: 'llf-row' }, start),
    h('div', {}, status, again),
    messages
  );
  el.replaceChildren(
    h('section', { class: 'llf-Sweep', 'aria-label': 'Sweep' }, toggle, panel)
  );
  /** @type {VariedRow[]} */
  const rows = [];

  const draw = () => {
    const open = model.get('_expanded');
    toggle.setAttribute('aria-expanded', String(open));
    panel.hidden = !open;
    if (!open) {
      return;
    }
    /** @type {Varied[]} */
    const varied = model.get('_rows');
    while (rows.length > varied.length) {
      rows.pop()?.node.remove();
    }
    while (rows.length < varied.length) {
      rows.push(
        new VariedRow(
          `${idPrefix}-${rows.length}`,
          rows.length,
          content => model.send(content),
          () => add.focus()
        )
      );
      body.append(rows[rows.length - 1].node);
    }
    table.classList.toggle('is-single', varied.length === 1);
    const keys = varied.map(row => row.key);
    varied.forEach((row, index) =>
      rows[index].update(row, model.get('_choices'), keys)
    );
    if (focusRow >= 0 && rows[focusRow]) {
      rows[focusRow].field.focus();
      focusRow = -1;
    }
    const count = model.get('_runs');
    const waiting = pending.state.waiting;
    setText(
      start,
      waiting
        ? 'Starting…'
        : count
          ? `Start ${count} run${count > 1 ? 's' : ''}`
          : 'Start'
    );
    setDisabled(start, waiting || !model.get('_ready'));
    setText(status, waiting ? pending.text() : model.get('_sentence'));
    again.hidden = !model.get('_again');
    drawMessages(messages, model.get('_messages'), (message, fix) =>
      model.send({ type: 'fix', message, fix })
    );
  };
  const pending = pendingStart(model, draw);
  model.on('change', draw);
  draw();
  return () => {
    pending.dispose();
    model.off('change', draw);
  };
}

/** One row: a field and its values. It is updated in place, so focus and input are kept. */
class VariedRow {
  /**
   * @param {string} id
   * @param {number} index
   * @param {(content: object) => void} send sends a message to the kernel
   * @param {() => void} onRemove
   */
  constructor(id, index, send, onRemove) {
    this.key = '';
    this.sent = '';
    let timer = 0;
    this.field = h('select', {
      'aria-label': index ? `Field ${index + 1}` : 'Field'
    });
    this.values = h('input', {
      type: 'text',
      spellcheck: 'false',
      autocomplete: 'off',
      'aria-describedby': `${id}-hint`
    });
    this.hint = h('div', {
      class: 'llf-secondary llf-small',
      id: `${id}-hint`
    });
    this.remove = createButton(
      'Remove',
      () => {
        send({ type: 'remove', row: index });
        onRemove();
      },
      'llf-link'
    );
    const sendValues = () => {
      clearTimeout(timer);
      if (this.values.value === this.sent) {
        return;
      }
      this.sent = this.values.value;
      send({ type: 'values', key: this.key, text: this.sent });
    };
    this.values.addEventListener('input', () => {
      clearTimeout(timer);
      timer = setTimeout(sendValues, TYPING_DELAY_MS);
    });
    this.values.addEventListener('change', sendValues);
    this.field.addEventListener('change', () => {
      sendValues();
      send({ type: 'field', row: index, key: this.field.value });
    });
    this.node = h(
      'tr',
      {},
      h('td', {}, this.field),
      h('td', {}, this.values, this.hint),
      h('td', {}, this.remove)
    );
  }

  /** Shows the kernel's state of the row. @param {Varied} row @param {Offered} offered @param {string[]} taken keys of all rows */
  update(row, offered, taken) {
    const groups = offered.map(([title, pairs]) => [
      title,
      pairs.filter(([key]) => key === row.key || !taken.includes(key))
    ]);
    drawIfChanged(this.field, groups, () =>
      /** @type {Offered} */ (groups).map(([title, pairs]) =>
        h(
          'optgroup',
          { label: title },
          ...pairs.map(([value, label]) => h('option', { value }, label))
        )
      )
    );
    this.field.value = row.key;
    const typing =
      this.key === row.key &&
      document.activeElement === this.values &&
      this.values.value !== this.sent;
    if (!typing) {
      if (this.values.value !== row.text) {
        this.values.value = row.text;
      }
      this.sent = row.text;
    }
    this.key = row.key;
    this.values.setAttribute('aria-label', `Values of ${row.label}`);
    const hint = `\`${row.key}\`: ${row.hint}`;
    drawIfChanged(this.hint, hint, () => textWithCode(hint));
    this.remove.setAttribute('aria-label', `Remove ${row.label}`);
  }
}
