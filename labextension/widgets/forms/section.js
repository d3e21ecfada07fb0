import { createButton } from '../shared/buttons.js';
import { drawIfChanged, h, placeChildren, setText } from '../shared/dom.js';
import { Field } from './field.js';

/** @import { Context } from '../shared/model' */
/** @import { Row } from './field.js' */

/**
 * Draws a section of the form: name and facts on the left, the fields beside them.
 * @param {Context} context
 */
export function formSection({ model, el }) {
  const heading = h('h3', {}, model.get('_title'));
  const facts = h('div', { class: 'llf-Section-facts' });
  const more = createButton(
    '',
    () => {
      model.set('_expanded', !model.get('_expanded'));
      model.save_changes();
    },
    'llf-link'
  );
  const rail = h('div', { class: 'llf-Section-rail' }, heading, facts, more);
  const grid = h('div', { class: 'llf-Section-fields' });
  const node = h(
    'section',
    { class: 'llf-Section', 'aria-label': model.get('_title') },
    rail,
    grid
  );
  el.replaceChildren(node);

  /** @type {Map<string, Field>} */
  const fields = new Map();
  /** @type {Map<string, HTMLElement>} */
  const headings = new Map();
  const edit = (/** @type {string} */ key, /** @type {string} */ text) =>
    model.send({ type: 'edit', key, text });
  const type = (/** @type {string} */ key, /** @type {string} */ text) =>
    model.send({ type: 'type', key, text });
  const fix = (
    /** @type {string} */ key,
    /** @type {number} */ message,
    /** @type {number} */ index
  ) => model.send({ type: 'fix', key, message, fix: index });

  const draw = () => {
    /** @type {Row[]} */
    const rows = model.get('_rows');
    const explain = model.get('_show_help');
    /** @type {HTMLElement[]} */
    const wanted = [];
    let group = '';
    for (const row of rows) {
      if (row.group !== group) {
        group = row.group;
        const heading =
          headings.get(group) ?? h('h4', { class: 'llf-Section-group' }, group);
        headings.set(group, heading);
        wanted.push(heading);
      }
      let field = fields.get(row.key);
      if (!field || field.kind !== row.kind) {
        field?.dispose();
        field = new Field(row, edit, fix, model, type);
        fields.set(row.key, field);
      }
      field.update(row, explain);
      wanted.push(field.node, field.messages);
    }
    placeChildren(grid, wanted);
    const count = model.get('_hidden_count');
    more.hidden = count === 0;
    const hidden = `${count} more ${count === 1 ? 'field' : 'fields'}`;
    setText(more, model.get('_expanded') ? 'Fewer fields' : hidden);
    more.setAttribute('aria-expanded', String(model.get('_expanded')));
    more.setAttribute(
      'aria-label',
      model.get('_expanded')
        ? `Fewer fields in ${model.get('_title')}`
        : `${hidden} in ${model.get('_title')}`
    );
    /** @type {string[]} */
    const lines = model.get('_facts');
    drawIfChanged(facts, lines, () => lines.map(line => h('p', {}, line)));
  };
  const focus = () => {
    const field = fields.get(model.get('_focus').key);
    if (!field) {
      return;
    }
    field.node.scrollIntoView({ block: 'center' });
    field.control.focus();
  };
  model.on(
    'change:_rows change:_show_help change:_hidden_count change:_facts change:_expanded',
    draw
  );
  model.on('change:_focus', focus);
  draw();
  return () => {
    model.off(
      'change:_rows change:_show_help change:_hidden_count change:_facts change:_expanded',
      draw
    );
    model.off('change:_focus', focus);
    fields.forEach(field => field.dispose());
  };
}
