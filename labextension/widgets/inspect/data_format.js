import { h, keepFocus } from '../shared/dom.js';
import { linkButton } from './elements.js';

/** Draws how rows are read, with drop-down lists that correct it, for data sets without an entry in dataset_info.json. */
export function formatSection(
  /** @type {any} */ found,
  /** @type {(changes: any) => void} */ change,
  /** @type {boolean} */ open
) {
  const sets = (found.readings ?? []).filter(
    (/** @type {any} */ one) => !one.entry && one.names.length
  );
  if (!sets.length) {
    return h('div', {});
  }
  const [first] = sets;
  const names = [
    ...new Set(sets.flatMap((/** @type {any} */ one) => one.names))
  ];
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
            onchange: (/** @type {any} */ event) => onSelect(event.target.value)
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
        selectField('format', Object.keys(found.roles), format, value =>
          draw(value, value === first.format ? first.columns : {})
        ),
        ...found.roles[format].map((/** @type {string} */ role) =>
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
    first.format in found.roles ? first.format : Object.keys(found.roles)[0];
  draw(known, known === first.format ? first.columns : {});
  const matches = first.error
    ? 'no format matches'
    : `${first.format}, ${Math.round(100 * first.fits)} % of the first rows match`;
  return h(
    'details',
    { class: 'llf-Inspect-note', open },
    h('summary', {}, `Data format: ${matches}`),
    h(
      'p',
      { class: 'llf-secondary llf-small' },
      first.error ?? `Reason: ${first.reason}.`
    ),
    body
  );
}
