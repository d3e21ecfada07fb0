import { textWithCode } from '../../src/text_with_code';
import { createButton, setDisabled } from '../shared/buttons.js';
import {
  drawIfChanged,
  h,
  placeChildren,
  setText,
  uniqueId
} from '../shared/dom.js';

/** @import { Context } from '../shared/model' */

/**
 * @typedef {object} View Nothing of it where the columns of the data set are not known.
 * @property {string} summary a sentence that says how the rows are read
 * @property {string[]} names
 * @property {string[][]} rows
 * @property {[string, string][]} formats name and label
 * @property {string} format the selected format
 * @property {[string, string, boolean, string][]} roles name, label, whether a column is required, the column
 * @property {string[]} missing labels of the roles that still need a column
 * @property {boolean} applied whether the rows are read with this selection
 * @property {boolean} configured whether the config sets the format and the columns
 */

/**
 * Draws the assignment of columns to roles: a summary and, when expanded, the first rows and a drop-down list for each
 * role. It lets a user read a data set whose columns fit no format.
 * @param {Context} context
 */
export function columnMapping({ model, el }) {
  const idPrefix = uniqueId('llf-columns');
  const summary = h('span', { role: 'status' });
  const toggle = createButton(
    '',
    () => {
      model.set('_expanded', !model.get('_expanded'));
      model.save_changes();
    },
    'llf-link'
  );
  toggle.setAttribute('aria-controls', idPrefix);
  const head = h('tr', {});
  const body = h('tbody', {});
  const table = h(
    'div',
    {
      class: 'llf-Columns-scroll',
      tabindex: '0',
      role: 'region',
      'aria-label': 'First rows of the data set'
    },
    h('table', { class: 'llf-Table' }, h('thead', {}, head), body)
  );
  const roleFields = h('div', { class: 'llf-Columns-roles' });
  const apply = createButton('Apply', () => model.send({ type: 'apply' }));
  const reset = createButton(
    'Detect automatically',
    () => model.send({ type: 'reset' }),
    'llf-link'
  );
  const status = h('span', { class: 'llf-secondary', id: `${idPrefix}-why` });
  apply.setAttribute('aria-describedby', status.id);
  const panel = h(
    'div',
    { id: idPrefix, class: 'llf-Columns-body' },
    table,
    roleFields,
    h('div', { class: 'llf-row' }, apply, reset, status)
  );
  const node = h(
    'div',
    { class: 'llf-Columns' },
    h('div', { class: 'llf-row llf-secondary' }, summary, toggle),
    panel
  );
  el.replaceChildren(node);
  /** @type {Map<string, { field: HTMLElement, select: HTMLSelectElement, label: HTMLElement }>} */
  const fields = new Map();

  /** Returns a labelled drop-down list. The same element is updated on each call, so that it keeps the focus. */
  const selectField = (
    /** @type {string} */ key,
    /** @type {string} */ caption,
    /** @type {[string, string][]} */ options,
    /** @type {string} */ value,
    /** @type {(value: string) => void} */ act
  ) => {
    let one = fields.get(key);
    if (!one) {
      const select = h('select', { id: `${idPrefix}-${key}` });
      const label = h('label', { for: select.id });
      one = {
        select,
        label,
        field: h('div', { class: 'llf-Field is-wide' }, label, select)
      };
      fields.set(key, one);
    }
    const { select } = one;
    select.onchange = () => act(select.value);
    setText(one.label, caption);
    drawIfChanged(select, options, () =>
      options.map(([option, label]) => h('option', { value: option }, label))
    );
    select.value = value;
    return one.field;
  };

  const draw = () => {
    /** @type {View} */
    const view = model.get('_view');
    node.hidden = !view.names;
    if (!view.names) {
      return;
    }
    const open = model.get('_expanded');
    drawIfChanged(summary, view.summary, () => textWithCode(view.summary));
    setText(toggle, open ? 'Close' : 'Change columns…');
    toggle.setAttribute('aria-expanded', String(open));
    panel.hidden = !open;
    const used = new Map(
      view.roles
        .filter(role => role[3])
        .map(([, words, , column]) => [column, words])
    );
    drawIfChanged(head, [view.names, [...used]], () =>
      view.names.map(name =>
        h(
          'th',
          { scope: 'col' },
          h('code', {}, name),
          used.has(name) ? h('b', {}, used.get(name)) : null
        )
      )
    );
    const looks = view.names.map(name =>
      used.has(name) ? null : 'llf-secondary'
    );
    drawIfChanged(body, [view.rows, looks], () =>
      view.rows.map(row =>
        h(
          'tr',
          {},
          ...row.map((cell, place) => h('td', { class: looks[place] }, cell))
        )
      )
    );
    const wanted = [
      selectField('format', 'Format', view.formats, view.format, format =>
        model.send({ type: 'format', format })
      ),
      ...view.roles.map(([role, words, needed, column]) =>
        selectField(
          role,
          words,
          [
            ['', needed ? 'choose a column' : 'none'],
            .../** @type {[string, string][]} */ (
              view.names.map(name => [name, name])
            )
          ],
          column,
          chosen => model.send({ type: 'role', role, column: chosen })
        )
      )
    ];
    placeChildren(roleFields, wanted);
    setDisabled(apply, view.missing.length > 0 || view.applied);
    reset.hidden = !view.configured;
    setText(
      status,
      view.missing.length
        ? `Choose a column for: ${view.missing.join(', ')}.`
        : view.applied
          ? ''
          : 'Not applied yet.'
    );
  };
  model.on('change', draw);
  draw();
  return () => model.off('change', draw);
}
