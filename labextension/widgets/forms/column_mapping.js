import { h, setText } from '../shared/dom.js';
import { button, renderText, setDisabled } from './messages.js';

/** @import { Context } from '../shared/model' */

/**
 * @typedef {object} View Nothing of it where the columns of the data set are not known.
 * @property {string} summary how the rows are read
 * @property {string[]} names
 * @property {string[][]} rows
 * @property {[string, string][]} formats name and words
 * @property {string} format the chosen one
 * @property {[string, string, boolean, string][]} roles name, words, whether it needs a column, the column
 * @property {string[]} missing words of the roles that still need a column
 * @property {boolean} applied whether the rows are read as chosen
 * @property {boolean} configured whether the config says how they are read
 */

/**
 * How the columns of the data set are read: a line, and behind it the first rows and a list for each role.
 * @param {Context} context
 */
export function columnMapping({ model, el }) {
  el.classList.add('llf-Section-el');
  const own = `llf-columns-${Math.random().toString(36).slice(2)}`;
  const line = h('span', { role: 'status' });
  const toggle = button(
    '',
    () => {
      model.set('_expanded', !model.get('_expanded'));
      model.save_changes();
    },
    'llf-link'
  );
  toggle.setAttribute('aria-controls', own);
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
  const lists = h('div', { class: 'llf-Columns-roles' });
  const apply = button('Apply', () => model.send({ type: 'apply' }));
  const reset = button(
    'Detect automatically',
    () => model.send({ type: 'reset' }),
    'llf-link'
  );
  const why = h('span', { class: 'llf-2', id: `${own}-why` });
  apply.setAttribute('aria-describedby', why.id);
  const inner = h(
    'div',
    { id: own, class: 'llf-Columns-body' },
    table,
    lists,
    h('div', { class: 'llf-row' }, apply, reset, why)
  );
  const node = h(
    'div',
    { class: 'llf-Columns' },
    h('div', { class: 'llf-row llf-2' }, line, toggle),
    inner
  );
  el.replaceChildren(node);
  /** @type {Map<string, { field: HTMLElement, select: HTMLSelectElement, label: HTMLElement }>} */
  const fields = new Map();

  /** A list that stays the same element, so that the focus stays on it. */
  const list = (
    /** @type {string} */ key,
    /** @type {string} */ words,
    /** @type {[string, string][]} */ options,
    /** @type {string} */ value,
    /** @type {(value: string) => void} */ act
  ) => {
    let one = fields.get(key);
    if (!one) {
      const select = h('select', { id: `${own}-${key}` });
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
    setText(one.label, words);
    const drawn = JSON.stringify(options);
    if (select.dataset.drawn !== drawn) {
      select.dataset.drawn = drawn;
      select.replaceChildren(
        ...options.map(([option, label]) =>
          h('option', { value: option }, label)
        )
      );
    }
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
    const drawn = JSON.stringify(view.summary);
    if (line.dataset.drawn !== drawn) {
      line.dataset.drawn = drawn;
      line.replaceChildren(...renderText(view.summary));
    }
    toggle.textContent = open ? 'Close' : 'Change columns…';
    toggle.setAttribute('aria-expanded', String(open));
    inner.hidden = !open;
    const used = new Map(
      view.roles
        .filter(role => role[3])
        .map(([, words, , column]) => [column, words])
    );
    head.replaceChildren(
      ...view.names.map(name =>
        h(
          'th',
          { scope: 'col' },
          h('code', {}, name),
          used.has(name) ? h('b', {}, used.get(name)) : null
        )
      )
    );
    body.replaceChildren(
      ...view.rows.map(row =>
        h(
          'tr',
          {},
          ...row.map((cell, place) =>
            h(
              'td',
              { class: used.has(view.names[place]) ? null : 'llf-2' },
              cell
            )
          )
        )
      )
    );
    const wanted = [
      list('format', 'Format', view.formats, view.format, format =>
        model.send({ type: 'format', format })
      ),
      ...view.roles.map(([role, words, needed, column]) =>
        list(
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
    for (const child of [...lists.children]) {
      if (!wanted.includes(/** @type {HTMLElement} */ (child))) {
        child.remove();
      }
    }
    wanted.forEach(
      (field, place) =>
        lists.children[place] !== field &&
        lists.insertBefore(field, lists.children[place] ?? null)
    );
    setDisabled(apply, view.missing.length > 0 || view.applied);
    reset.hidden = !view.configured;
    setText(
      why,
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
