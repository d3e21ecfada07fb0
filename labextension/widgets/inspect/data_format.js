import { h, keepFocus } from '../shared/dom.js';
import { linkButton } from './elements.js';

/** @import { Change, Readings } from './types' */

/** Draws how rows are read, with drop-down lists that correct it, for data sets without an entry in dataset_info.json. */
export function formatSection(
  /** @type {Partial<Readings>} */ { readings = [], roles = {} },
  /** @type {Change} */ change,
  /** @type {boolean} */ open
) {
  const sets = readings.filter(one => !one.entry && one.names.length);
  if (!sets.length) {
    return h('div', {});
  }
  const [first] = sets;
  const detected = first.error === undefined ? first : null;
  const columnsOf = (/** @type {string} */ format) =>
    format === detected?.format ? detected.columns : {};
  const names = [...new Set(sets.flatMap(one => one.names))];
  const body = h('div', { class: 'llf-DataFormat' });
  const draw = (
    /** @type {string} */ format,
    /** @type {Record<string, string>} */ columns
  ) => {
    const chosen = { ...columns };
    const selectField = (
      /** @type {string} */ label,
      /** @type {string[]} */ options,
      /** @type {string} */ now,
      /** @type {(value: string) => void} */ onSelect
    ) =>
      h(
        'label',
        { class: 'llf-DataFormat-field' },
        h('span', { class: 'llf-secondary' }, label),
        h(
          'select',
          {
            onchange: event => onSelect(event.target.value)
          },
          ...options.map(option =>
            h(
              'option',
              { value: option, selected: option === now },
              option || '–'
            )
          )
        )
      );
    const fill = () =>
      body.replaceChildren(
        selectField('format', Object.keys(roles), format, value =>
          draw(value, columnsOf(value))
        ),
        ...roles[format].map(role =>
          selectField(role, ['', ...names], chosen[role] ?? '', value => {
            if (value) {
              chosen[role] = value;
            } else {
              delete chosen[role];
            }
          })
        ),
        h(
          'button',
          {
            type: 'button',
            onclick: () =>
              change({ dataset_format: format, dataset_columns: chosen })
          },
          'Apply'
        ),
        linkButton('Detect automatically', () =>
          change({ dataset_format: null, dataset_columns: null })
        )
      );
    keepFocus(body, fill);
  };
  const known =
    detected && detected.format in roles
      ? detected.format
      : Object.keys(roles)[0];
  draw(known, columnsOf(known));
  const matches = detected
    ? `${detected.format}, ${Math.round(100 * detected.fits)} % of the first rows match`
    : 'no format matches';
  return h(
    'details',
    { class: 'llf-Inspect-note', open },
    h('summary', {}, `Data format: ${matches}`),
    h(
      'p',
      { class: 'llf-secondary llf-small' },
      detected ? `Reason: ${detected.reason}.` : first.error
    ),
    body
  );
}
