// What a run trains and which servers load its result, drawn alike in the form, the monitor and the panel.

import { textWithCode } from './text_with_code';

/** A list of layers as a table: a column for each module, a row for the layers that are alike. */
export interface ILayerTable {
  name: string;
  columns: { module: string; note: string }[];
  /** `cells` has the state of each module, or null where these layers have no such module. */
  rows: { layers: string; short: string; cells: (string | null)[] }[];
}

/** Result of `llf_core.runs.parameter_grid.parameter_grid`. */
export interface IParameterGrid {
  /** A sentence with the share of trained parameters. */
  share: string;
  stacks: ILayerTable[];
  outside: { module: string; note: string; state: string }[];
  /** Each state that occurs, and what it means. */
  legend: [string, string][];
}

/** Result of `llf_core.config.adapter_servers.Servers.json`. */
export interface IServers {
  /** A sentence about a whole model; empty for an adapter. */
  whole: string;
  verdicts: {
    server: string;
    verdict: 'yes' | 'setting' | 'no';
    label: string;
    reason: string;
    source: string;
  }[];
}

/** Width that a module's column needs, and that of the names of layers or modules beside the table, in pixels. */
const COLUMN_WIDTH = 68;
const HEAD_WIDTH = 120;
const REGION_LABEL = 'Layers and modules';

/** Creates an element. Strings become text nodes: the names of modules are those of a stranger's model. */
function element<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  attributes: Record<string, string>,
  ...children: (Node | string)[]
): HTMLElementTagNameMap[Tag] {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

/** The name of a module, which may break after each dot and underscore. */
function moduleName(path: string): (Node | string)[] {
  return path
    .split(/(?<=[._])/)
    .flatMap((part, index) =>
      index ? [document.createElement('wbr'), part] : [part]
    );
}

/** The cell of a state; the first word of its text decides its look. */
function stateCell(state: string | null): HTMLElement {
  if (state === null) {
    return element(
      'td',
      { class: 'is-absent' },
      element('span', { class: 'llf-sr' }, 'no such module')
    );
  }
  const name = state.split(',')[0].replace(' ', '-');
  return element('td', { class: `is-${name}` }, state);
}

/**
 * Draws a list of layers: the layers down and the modules across if there is room for it, otherwise the other way
 * round, so that the words stay readable in the panel.
 */
function layerTable(
  { name, columns, rows }: ILayerTable,
  modulesAcross: boolean
): HTMLElement {
  const modules = columns.map(({ module, note }) => ({
    content: moduleName(module),
    title: note
  }));
  const layers = rows.map(row => ({
    content: [row.short] as (Node | string)[],
    title: row.layers
  }));
  const [across, down] = modulesAcross ? [modules, layers] : [layers, modules];
  const cell = (row: number, column: number): string | null =>
    modulesAcross ? rows[row].cells[column] : rows[column].cells[row];
  return element(
    'table',
    {
      class: `llf-Trained-table ${modulesAcross ? 'is-across' : 'is-down'}`
    },
    element('caption', {}, name),
    element(
      'thead',
      {},
      element(
        'tr',
        {},
        element('td', {}),
        ...across.map(({ content, title }) =>
          element('th', { scope: 'col', title }, ...content)
        )
      )
    ),
    element(
      'tbody',
      {},
      ...down.map(({ content, title }, row) =>
        element(
          'tr',
          {},
          element('th', { scope: 'row', title }, ...content),
          ...across.map((_, column) => stateCell(cell(row, column)))
        )
      )
    )
  );
}

/** The modules outside the layers, such as the embedding, each with its state. */
function outsideTable(outside: IParameterGrid['outside']): HTMLElement {
  return element(
    'table',
    { class: 'llf-Trained-table is-down' },
    element('caption', {}, 'Outside the layers'),
    element(
      'tbody',
      {},
      ...outside.map(({ module, note, state }) =>
        element(
          'tr',
          {},
          element('th', { scope: 'row', title: note }, ...moduleName(module)),
          stateCell(state)
        )
      )
    )
  );
}

/** The share of trained parameters as a sentence, whose number stays on one line with its sign. */
export function shareOf(grid: IParameterGrid): string {
  return grid.share.replace(' %', '\u00a0%');
}

/**
 * Draws which parameters are trained: a table for each list of layers, the modules outside them, and what the states
 * mean. The tables change their direction with the width of the element.
 */
export function drawTrained(grid: IParameterGrid): HTMLElement {
  const tables = element('div', {
    class: 'llf-Trained-tables',
    role: 'region',
    'aria-label': REGION_LABEL,
    tabindex: '0'
  });
  let drawn: string | undefined;
  const draw = (width: number): void => {
    const fits = grid.stacks.map(
      ({ columns, rows }) =>
        columns.length * COLUMN_WIDTH + HEAD_WIDTH <= width ||
        rows.length > columns.length
    );
    if (drawn === fits.join()) {
      return;
    }
    drawn = fits.join();
    tables.replaceChildren(
      ...grid.stacks.map((stack, index) => layerTable(stack, fits[index])),
      ...(grid.outside.length ? [outsideTable(grid.outside)] : [])
    );
  };
  draw(0);
  if (typeof ResizeObserver === 'function') {
    new ResizeObserver(([entry]) => {
      if (entry.contentRect.width > 0) {
        draw(entry.contentRect.width);
      }
    }).observe(tables);
  }
  return element(
    'div',
    { class: 'llf-Trained' },
    tables,
    element(
      'dl',
      { class: 'llf-Trained-legend' },
      ...grid.legend.map(([state, meaning]) =>
        element('div', {}, element('dt', {}, state), element('dd', {}, meaning))
      )
    )
  );
}

/**
 * Draws which servers load the result: one line, and the reasons below it when it is opened. Of a whole model it is one
 * sentence.
 */
export function drawServers({ whole, verdicts }: IServers): HTMLElement {
  if (whole) {
    return element('p', { class: 'llf-Servers' }, whole);
  }
  return element(
    'details',
    { class: 'llf-Servers' },
    element(
      'summary',
      {},
      'Loads in ',
      ...verdicts.flatMap(({ server, label, verdict }, index) => [
        index ? ' · ' : '',
        element(
          'span',
          { class: `llf-nowrap is-${verdict}` },
          element('b', {}, server),
          `: ${label}`
        )
      ])
    ),
    element(
      'ul',
      {},
      ...verdicts.map(({ server, label, reason, source }) =>
        element(
          'li',
          {},
          element('b', {}, server),
          `, ${label}: `,
          ...textWithCode(reason),
          ' ',
          element('span', { class: 'llf-secondary' }, `(${source})`)
        )
      )
    )
  );
}
