// The prepared data: totals, lengths, unusual records, tokens of one example, packed rows.

import '../shared/llf.css';
import './inspect.css';
import { h } from '../shared/dom.js';
import { codeNotice } from '../shared/foreign_code.js';
import { initialize } from '../shared/initialize.js';
import { formatBytes, formatDuration } from '../../src/numbers';

/** @import { Context } from '../shared/model' */

const NUMBER = new Intl.NumberFormat('en');
const SVG = 'http://www.w3.org/2000/svg';
/** @type {Record<string, string>} */
const TOKEN_CLASSES = {
  prompt: '',
  trained: 'is-trained',
  cut: 'is-truncated'
};
/** @type {Record<string, string>} */
const TOKEN_ROLES = {
  prompt: 'not in the loss',
  trained: 'in the loss',
  cut: 'truncated'
};
const RECORD_KINDS = {
  all: 'all',
  dropped: 'dropped',
  cut: 'truncated',
  divided: 'split',
  doubled: 'duplicated',
  leaked: 'leaked',
  unanswered: 'without a response',
  longest: 'longest'
};
const NOT_IN_TOTAL = ['unanswered', 'longest'];
const HINT =
  'Hover over a token or use the arrow keys to see its id, position and role.';
const LONG_TURN = 160; // tokens shown at the beginning and at the end of a long turn

/**
 * Creates an SVG element; strings become text nodes.
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {...(Node | string)} children
 */
function svg(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, String(value));
  }
  element.append(...children);
  return element;
}

/** Creates a button that looks like a link. */
function linkButton(
  /** @type {string} */ label,
  /** @type {() => void} */ onClick,
  /** @type {Record<string, any>} */ more = {}
) {
  return h(
    'button',
    { type: 'button', class: 'llf-link', onclick: onClick, ...more },
    label
  );
}

/** Returns the name of a data set without its file extension. */
function withoutSuffix(/** @type {string} */ name) {
  return name.replace(
    /\.(jsonl?|csv|tsv|parquet|arrow|txt)(\.(gz|bz2|xz|zst))?$/,
    ''
  );
}

/** Formats a part of a whole as a percentage. */
function percent(/** @type {number} */ part, /** @type {number} */ whole) {
  return `${whole ? Math.round((100 * part) / whole) : 0} %`;
}

/** @typedef {{class?: string, label?: string, text?: number[], row?: (place: number) => Record<string, string | null>}} TableLook `text` are the columns that hold no numbers */

/** Creates a table. @param {string[]} heads @param {(string | Node)[][]} rows @param {TableLook} [look] */
function table(heads, rows, look = {}) {
  const cell =
    (/** @type {'td' | 'th'} */ tag) =>
    (/** @type {any} */ value, /** @type {number} */ place) =>
      h(tag, { class: look.text?.includes(place) ? null : 'llf-num' }, value);
  return h(
    'table',
    { class: `llf-Table ${look.class ?? ''}`, 'aria-label': look.label },
    h(
      'thead',
      {},
      h(
        'tr',
        {},
        ...heads.map((head, place) => cell(head ? 'th' : 'td')(head, place))
      )
    ),
    h(
      'tbody',
      {},
      ...rows.map((row, place) =>
        h('tr', look.row?.(place) ?? {}, ...row.map(cell('td')))
      )
    )
  );
}

/** Draws the counts of each data set: records, tokens, and tokens in the loss. */
function totalsSection(/** @type {any} */ overview) {
  const keys = [
    'records',
    'examples',
    'truncated',
    'dropped',
    'tokens',
    'trained_tokens'
  ];
  /** @type {any[][]} */
  const sets = overview.sets.map((/** @type {any} */ one) => [
    one.dataset,
    ...keys.map(key => one[key])
  ]);
  if (sets.length > 1) {
    sets.push([
      'All',
      ...keys.map((_, place) =>
        sets.reduce((sum, row) => sum + row[place + 1], 0)
      )
    ]);
  }
  const rows = sets.map(row => [
    h('span', { class: 'llf-ellipsis', title: row[0] }, withoutSuffix(row[0])),
    ...row.slice(1).map(NUMBER.format),
    percent(row[6], row[5])
  ]);
  const evaluation = overview.held_out
    ? `, ${NUMBER.format(overview.held_out)} of them held out`
    : '';
  const streamed = overview.streamed
    ? ` Streamed: the first ${NUMBER.format(overview.streamed)} records of each set are shown.`
    : '';
  const preparation = overview.cached
    ? 'loaded from the cache'
    : `prepared in ${overview.seconds.toFixed(1)} s`;
  const duplicates = overview.copies
    ? [
        h(
          'p',
          { class: 'llf-small llf-Inspect-copies', role: 'status' },
          overview.copies.replaceAll('`', '')
        )
      ]
    : [];
  return h(
    'section',
    { 'aria-label': 'Totals' },
    h('h3', {}, 'Totals'),
    table(
      [
        'Data set',
        'Records',
        'Kept',
        'Truncated',
        'Dropped',
        'Tokens',
        'In the loss',
        '%'
      ],
      rows,
      {
        class: 'llf-Totals',
        text: [0],
        row: place => ({
          class:
            sets.length > 1 && place === sets.length - 1 ? 'is-total' : null
        })
      }
    ),
    ...duplicates,
    h(
      'p',
      { class: 'llf-secondary llf-small llf-Inspect-note' },
      `${overview.sets.map((/** @type {any} */ one) => `${one.dataset}: ${one.reading}`).join('. ')}. ` +
        `Template: ${overview.template}. ${NUMBER.format(overview.examples + overview.held_out)} examples${evaluation}, ${preparation}.${streamed}`
    )
  );
}

/** Draws how rows are read, with drop-down lists that correct it, for data sets without an entry in dataset_info.json. */
function formatSection(
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

/** Draws a histogram of the lengths with the cutoff, and a table of what other cutoffs would truncate. */
function lengthsSection(
  /** @type {any} */ data,
  /** @type {(changes: any) => void} */ change
) {
  const section = h(
    'section',
    { 'aria-label': 'Lengths' },
    h('h3', {}, 'Lengths and cutoff_len')
  );
  if (!data.edges) {
    return section;
  }
  const [left, right, top, base] = [40, 642, 26, 116];
  const highest = Math.max(...data.counts, 1);
  const last = data.edges[data.edges.length - 1];
  const x = (/** @type {number} */ tokens) =>
    left + ((right - left) * Math.min(tokens, last)) / last;
  const picture = svg(
    'svg',
    {
      class: 'llf-Figure',
      viewBox: '0 0 650 136',
      role: 'img',
      'aria-label': `Lengths of examples: median ${data.median} tokens; ${data.longer} exceed the cutoff of ${data.cutoff}`
    },
    svg('text', { x: 0, y: 10 }, 'examples')
  );
  data.counts.forEach(
    (/** @type {number} */ count, /** @type {number} */ place) => {
      const height = ((base - top) * count) / highest;
      const cut = data.edges[place] >= data.cutoff ? ' is-cut' : '';
      const [from, to] = [x(data.edges[place]), x(data.edges[place + 1])];
      picture.append(
        svg(
          'rect',
          {
            class: `bar${cut}`,
            x: from + 0.5,
            y: base - height,
            width: Math.max(0.5, to - from - 1),
            height
          },
          svg(
            'title',
            {},
            `${NUMBER.format(count)} examples of ${data.edges[place]} to ${data.edges[place + 1] - 1} tokens`
          )
        )
      );
    }
  );
  picture.append(
    svg('path', {
      class: 'axis',
      d: `M${left} ${base}V${top}M${left} ${base}H${right}`
    })
  );
  for (const part of [0, 0.5, 1]) {
    const y = base - (base - top) * part;
    picture.append(
      svg('path', { class: 'axis', d: `M${left} ${y}h-4` }),
      svg(
        'text',
        { class: 'e', x: left - 7, y: y + 4 },
        NUMBER.format(Math.round(highest * part))
      )
    );
  }
  for (let tick = 0; tick <= 6; tick += 1) {
    const tokens = Math.round((last * tick) / 6);
    picture.append(
      svg('path', { class: 'axis', d: `M${x(tokens)} ${base}v4` }),
      svg(
        'text',
        { class: 'm', x: x(tokens), y: 131 },
        tick ? NUMBER.format(tokens) : '0 tokens'
      )
    );
  }
  picture.append(
    svg('path', { class: 'mark', d: `M${x(data.median)} 18V${base}` }),
    svg(
      'text',
      { class: 't', x: x(data.median) + 5, y: 22 },
      `median ${NUMBER.format(data.median)}`
    )
  );
  if (data.cutoff <= last) {
    const flip = x(data.cutoff) > 440;
    const place = {
      class: flip ? 't e' : 't',
      x: x(data.cutoff) + (flip ? -6 : 6),
      y: 36
    };
    picture.append(
      svg('path', { class: 'limit', d: `M${x(data.cutoff)} 14V${base}` }),
      svg(
        'text',
        place,
        `cutoff ${NUMBER.format(data.cutoff)}: ${NUMBER.format(data.longer)} examples are longer`
      )
    );
  }
  /** @type {(string | Node)[][]} */
  const rows = data.cutoffs.map((/** @type {any} */ one) => [
    NUMBER.format(one.cutoff),
    NUMBER.format(one.cut),
    NUMBER.format(one.lost),
    `${(100 * one.lost_answers).toFixed(1)} %`,
    NUMBER.format(one.rows),
    one.seconds === null ? '–' : formatDuration(one.seconds),
    formatBytes(one.memory),
    one.cutoff === data.cutoff
      ? 'now'
      : linkButton(`Use ${NUMBER.format(one.cutoff)}`, () =>
          change({ cutoff_len: one.cutoff })
        )
  ]);
  const timed = data.speed
    ? ` Epoch: at the ${NUMBER.format(Math.round(data.speed))} tokens per second of your last run of this model.`
    : ' Epoch: known after the first run of this model on this machine.';
  if (!rows.length) {
    section.append(
      picture,
      h(
        'p',
        { class: 'llf-secondary llf-small llf-Inspect-note' },
        `Length of a pair: the prompt with its longer response. ${NUMBER.format(data.longer)} were truncated to ${NUMBER.format(data.cutoff)} tokens.`
      )
    );
    return section;
  }
  section.append(
    picture,
    table(
      [
        'Cutoff',
        'Truncated examples',
        'Tokens lost',
        'of responses',
        'Packed rows',
        'Epoch',
        'Peak memory',
        ''
      ],
      rows,
      {
        class: 'llf-Cutoffs',
        row: place => ({
          class:
            data.cutoffs[place].cutoff === data.cutoff ? 'is-current' : null
        })
      }
    ),
    h(
      'p',
      { class: 'llf-secondary llf-small llf-Inspect-note' },
      `Memory and packed rows are estimates.${timed}`
    )
  );
  return section;
}

/** Draws a page of unusual records with a filter and a search. */
function recordsSection(
  /** @type {any} */ page,
  /** @type {number | null} */ shown,
  /** @type {any} */ actions
) {
  const kinds = page.kinds ?? actions.kinds;
  const recordCount = Object.entries(kinds ?? {}).reduce(
    (total, [kind, count]) =>
      NOT_IN_TOTAL.includes(kind) ? total : total + count,
    0
  );
  const choose = h(
    'select',
    {
      'aria-label': 'Show',
      onchange: event => actions.page(event.target.value, 0)
    },
    ...Object.entries(RECORD_KINDS).map(([kind, label]) =>
      h(
        'option',
        { value: kind, selected: page.kind === kind },
        `${label} (${NUMBER.format(kind === 'all' ? recordCount : (kinds?.[kind] ?? 0))})`
      )
    ),
    page.kind === 'search'
      ? h('option', { value: 'search', selected: true }, 'found')
      : null
  );
  const searchBox = h('input', {
    type: 'text',
    placeholder: 'Search texts',
    'aria-label': 'Search texts',
    value: page.query ?? '',
    onkeydown: event => {
      if (event.key !== 'Enter') {
        return;
      }
      if (event.target.value) {
        actions.search(event.target.value, 0);
      } else {
        actions.page('all', 0);
      }
    }
  });
  const rows = page.rows ?? [];
  const first = page.kind === 'search' ? null : page.offset + 1;
  const range =
    first === null
      ? `${rows.length} found`
      : rows.length
        ? `${first} to ${page.offset + rows.length} of ${NUMBER.format(page.total)}`
        : '';
  const next =
    page.kind === 'search'
      ? page.next
      : page.offset + rows.length < page.total
        ? page.offset + rows.length
        : null;
  const goTo = (/** @type {number} */ to) =>
    page.kind === 'search'
      ? actions.search(page.query, to)
      : actions.page(page.kind, to);
  const duplicates = kinds?.doubled ?? 0;
  const label = (/** @type {any} */ row) =>
    `${withoutSuffix(row.dataset)} ${row.where}`;
  return h(
    'section',
    { 'aria-label': 'Records' },
    h('h3', {}, 'Records'),
    h(
      'div',
      { class: 'llf-row' },
      choose,
      searchBox,
      h(
        'span',
        { class: 'llf-secondary llf-small llf-push', role: 'status' },
        range
      ),
      page.offset > 0 ? linkButton('First', () => goTo(0)) : null,
      next === null || next === undefined
        ? null
        : linkButton('Next', () => goTo(next))
    ),
    rows.length
      ? h(
          'p',
          { class: 'llf-secondary llf-small llf-Inspect-note' },
          'Lines and rows are counted from 1.'
        )
      : null,
    rows.length
      ? table(
          ['What', 'Record', 'Reason'],
          rows.map((/** @type {any} */ row) => [
            row.kind ?? 'found',
            row.number === null
              ? label(row)
              : linkButton(label(row), () => actions.example(row.number)),
            row.reason
          ]),
          {
            class: 'llf-Rows',
            text: [0, 1, 2],
            label: 'Records that are dropped, truncated, duplicated or leaked',
            row: place => ({
              class: `is-${rows[place].kind ?? 'found'}`,
              'aria-current':
                rows[place].number !== null && rows[place].number === shown
                  ? 'true'
                  : null
            })
          }
        )
      : h(
          'p',
          { class: 'llf-secondary' },
          page.kind === 'search'
            ? `No text contains “${page.query}”${next === null ? '' : ' so far'}.`
            : page.kind
              ? 'No records of this kind.'
              : ''
        ),
    h(
      'div',
      { class: 'llf-row llf-Inspect-actions' },
      duplicates
        ? h(
            'button',
            {
              type: 'button',
              onclick: () => actions.change({ drop_duplicates: true })
            },
            `Drop ${NUMBER.format(duplicates)} duplicates`
          )
        : null,
      kinds?.dropped
        ? h(
            'button',
            {
              type: 'button',
              onclick: () => actions.change({ stop_on_dropped: true })
            },
            'Fail on dropped records'
          )
        : null
    )
  );
}

/** Draws one example token by token. The arrow keys move between the tokens. */
function tokensSection(/** @type {any} */ example, /** @type {any} */ actions) {
  const legend = h(
    'div',
    { class: 'llf-Legend' },
    ...[
      ['', 'Abc', 'not in the loss'],
      ['is-trained', 'Abc', 'in the loss'],
      ['is-truncated', 'Abc', 'truncated']
    ].map(([kind, sample, word]) =>
      h(
        'span',
        {},
        h(
          'span',
          { class: 'llf-Tokens' },
          h('span', { class: kind || null }, sample)
        ),
        ` ${word}`
      )
    )
  );
  const section = h(
    'section',
    { 'aria-label': 'Tokens' },
    h('h3', {}, 'Tokens in the loss'),
    legend
  );
  if (!example) {
    return section;
  }
  const tokenInfo = h(
    'p',
    { class: 'llf-secondary llf-small llf-Tip-line', role: 'status' },
    HINT
  );
  const spans = /** @type {HTMLElement[]} */ ([]);
  const facts = /** @type {any[]} */ ([]);
  const total = example.tokens;
  let current = -1;
  const select = (/** @type {number} */ place) => {
    if (!spans[place]) {
      return;
    }
    spans[current]?.classList.remove('is-hover');
    current = place;
    spans[current].classList.add('is-hover');
    const {
      text,
      id,
      state,
      role,
      position,
      total: length,
      kept
    } = facts[current];
    const row =
      example.row === undefined || state === 'truncated'
        ? ''
        : `, row ${example.row} at ${example.offset + kept}`;
    tokenInfo.textContent = `${JSON.stringify(text)}, id ${id} · position ${position + 1} of ${length}${row} · ${role ? `${role}, ` : ''}${TOKEN_ROLES[state]}`;
  };
  let side = { total, position: 0, kept: 0, name: '' };
  const drawTurn = (/** @type {any} */ turn) => {
    const line = h('div', { class: 'llf-Tokens' });
    const isLong = turn.tokens.length > 2 * LONG_TURN + 20;
    const hidden = h('span', { hidden: true, class: 'llf-Tokens-rest' });
    turn.tokens.forEach(
      (
        /** @type {any} */ [text, id, state, special],
        /** @type {number} */ place
      ) => {
        const span = h(
          'span',
          {
            class:
              [TOKEN_CLASSES[state], special ? 'is-special' : '']
                .join(' ')
                .trim() || null
          },
          text.replaceAll('\r', '␍').replaceAll('\t', '⇥').replaceAll('\n', '↵')
        );
        const role = [side.name, turn.role].filter(Boolean).join(', ');
        facts.push({
          text,
          id,
          state,
          role,
          position: side.position++,
          total: side.total,
          kept: state === 'truncated' ? side.kept : side.kept++
        });
        const number = spans.push(span) - 1;
        span.addEventListener('mouseenter', () => select(number));
        const inside =
          isLong &&
          place >= LONG_TURN &&
          place < turn.tokens.length - LONG_TURN;
        const parent = inside ? hidden : line;
        parent.append(span);
        if (text.includes('\n')) {
          parent.append(document.createElement('br'));
        }
        if (isLong && place === LONG_TURN) {
          const more = linkButton(
            `… ${NUMBER.format(turn.tokens.length - 2 * LONG_TURN)} tokens …`,
            () => {
              hidden.hidden = false;
              more.remove();
            }
          );
          line.append(more, hidden);
        }
      }
    );
    return h('div', { class: 'llf-Turn' }, h('span', {}, turn.role), line);
  };
  const turns = example.rejected ? pair() : example.turns.map(drawTurn);

  /** Draws a preference pair: the prompt once, and both answers side by side. */
  function pair() {
    const shared = example.turns.slice(0, -1).map(drawTurn);
    const [position, kept] = [side.position, side.kept];
    const column = (/** @type {string} */ name, /** @type {any} */ one) => {
      side = { total: one.tokens, position, kept, name };
      return h(
        'div',
        { role: 'group', 'aria-label': `The ${name} response` },
        h(
          'h4',
          {},
          name,
          ' ',
          h(
            'span',
            { class: 'llf-secondary llf-small' },
            `${NUMBER.format(one.trained)} tokens in the loss`,
            one.cut ? `, ${NUMBER.format(one.cut)} truncated` : ''
          )
        ),
        ...one.turns.slice(-1).map(drawTurn)
      );
    };
    return [
      ...shared,
      h(
        'div',
        { class: 'llf-Pair' },
        column('chosen', example),
        column('rejected', example.rejected)
      )
    ];
  }

  const body = h(
    'div',
    {
      class: 'llf-Example-body',
      tabindex: '0',
      role: 'group',
      'aria-label': 'Tokens: use the arrow keys to move',
      onmouseleave: () => {
        tokenInfo.textContent = HINT;
        spans[current]?.classList.remove('is-hover');
      },
      onkeydown: (/** @type {KeyboardEvent} */ event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) {
          return;
        }
        event.preventDefault();
        select(Math.min(spans.length - 1, Math.max(0, current + step)));
        spans[current].scrollIntoView({ block: 'nearest' });
      }
    },
    ...turns
  );
  const other = example.rejected;
  const counts = other
    ? `${NUMBER.format(total)} tokens with the chosen response, ${NUMBER.format(other.tokens)} with the rejected one`
    : `${NUMBER.format(total)} tokens: ${NUMBER.format(example.prompt)} read, ${NUMBER.format(example.trained)} learned`;
  const kind = example.held_out
    ? 'held out'
    : example.row === undefined
      ? 'whole'
      : `row ${example.row}`;
  const cut = example.cut
    ? h(
        'span',
        { class: 'llf-warning-text' },
        `, ${NUMBER.format(example.cut)} truncated`
      )
    : null;
  section.append(
    h(
      'div',
      { class: 'llf-Example' },
      h(
        'header',
        {},
        h('b', {}, `${withoutSuffix(example.dataset)} ${example.where}`),
        h('span', {}, counts, cut),
        h('span', { class: 'llf-secondary llf-push' }, kind),
        example.number > 0
          ? linkButton('Previous', () => actions.example(example.number - 1))
          : null,
        example.number < actions.last
          ? linkButton('Next', () => actions.example(example.number + 1))
          : null
      ),
      tokenInfo,
      body
    )
  );
  return section;
}

/** Draws packed rows with the boundaries of their examples. */
function packedRowsSection(
  /** @type {any} */ rows,
  /** @type {any} */ overview,
  /** @type {any} */ actions
) {
  const section = h('section', {
    'aria-label': 'Packed rows'
  });
  const fill = `${(100 * overview.packing_fill).toFixed(1)} % full`;
  if (!rows.total) {
    const reason = overview.packing_fill
      ? `Packing is off; with packing: true, rows of ${NUMBER.format(overview.cutoff)} would be ${fill}.`
      : 'Preference pairs are not packed.';
    section.append(
      h('h3', {}, 'Packed rows'),
      h('p', { class: 'llf-secondary' }, reason)
    );
    return section;
  }
  const [left, right, step] = [66, 1100, 22];
  const picture = svg('svg', {
    class: 'llf-Figure',
    viewBox: `0 0 1186 ${rows.rows.length * step + 6}`,
    role: 'group',
    'aria-label': `${rows.rows.length} packed rows with the boundaries of their examples`
  });
  rows.rows.forEach((/** @type {any} */ row, /** @type {number} */ line) => {
    const y = 4 + line * step;
    const scale = (right - left) / rows.capacity;
    let place = left;
    picture.append(
      svg('text', { class: 't', x: 0, y: y + 12 }, `row ${row.row}`)
    );
    for (const [number, name, prompt, learned] of row.examples) {
      const [, set, where] = /^(?:(.*) )?(\w+ [\d,]+)$/.exec(name) ?? [
        '',
        '',
        name
      ];
      const label = set ? `${withoutSuffix(set)} ${where}` : where;
      const width = (prompt + learned) * scale;
      const group = svg(
        'g',
        {
          class: 'llf-Packed',
          role: 'button',
          tabindex: 0,
          'aria-label': `Example ${label}`
        },
        svg(
          'title',
          {},
          `${label}: ${prompt} prompt tokens, ${learned} in the loss`
        ),
        svg('rect', {
          class: 'p-prompt',
          x: place,
          y,
          width: Math.max(0.5, prompt * scale),
          height: 16
        }),
        svg('rect', {
          class: 'p-train',
          x: place + prompt * scale,
          y,
          width: Math.max(0.5, learned * scale - 1),
          height: 16
        })
      );
      if (width > 7 * String(label).length + 8) {
        group.append(
          svg('text', { class: 't', x: place + 4, y: y + 12 }, String(label))
        );
      }
      group.addEventListener('click', () => actions.example(number));
      group.addEventListener('keydown', event => {
        if (event.key === 'Enter') {
          actions.example(number);
        }
      });
      picture.append(group);
      place += width;
    }
    if (place < right - 1) {
      picture.append(
        svg('rect', {
          class: 'p-rest',
          x: place,
          y,
          width: right - place,
          height: 16
        })
      );
    }
    picture.append(
      svg(
        'text',
        { class: 'e', x: 1186, y: y + 12 },
        `${NUMBER.format(row.filled)} of ${NUMBER.format(rows.capacity)}`
      )
    );
  });
  const next = rows.offset + rows.rows.length;
  section.append(
    h(
      'div',
      { class: 'llf-row' },
      h('h3', {}, 'Packed rows'),
      h(
        'span',
        { class: 'llf-secondary' },
        `${NUMBER.format(rows.total)} rows of ${NUMBER.format(rows.capacity)}, ${fill}. Examples do not attend to each other; position ids restart at 0 in each.`
      ),
      h(
        'span',
        { class: 'llf-push llf-secondary llf-small' },
        `${NUMBER.format(rows.offset + 1)} to ${NUMBER.format(next)} of ${NUMBER.format(rows.total)}`
      ),
      next < rows.total
        ? linkButton('Next', () => actions.rows(next, rows.least))
        : null,
      linkButton(rows.least ? 'In order' : 'Least full first', () =>
        actions.rows(0, !rows.least)
      )
    ),
    picture
  );
  return section;
}

/** Draws the view; each section is drawn again when its trait changes. @param {Context} context */
function render({ model, el }) {
  el.classList.add('llf', 'llf-Inspect');
  const status = h('div', { class: 'llf-row', role: 'status', tabindex: '-1' });
  const formatBox = h('div', {});
  const notice = codeNotice({
    purpose: 'The tokenizer needs it to show the tokens.',
    label: 'Allow this code and inspect again',
    progress: 'Reading the data…',
    onAllow: () => model.send({ type: 'allow' }),
    fallback: () => status
  });
  const parts = {
    totals: h('div', {}),
    lengths: h('div', {}),
    records: h('div', {}),
    tokens: h('div', {}),
    packed: h('div', {})
  };
  const grid = h(
    'div',
    { class: 'llf-Inspect-grid' },
    h('div', {}, parts.totals, parts.records),
    h('div', {}, parts.lengths, parts.tokens),
    parts.packed
  );
  el.replaceChildren(status, notice.box, grid);
  /** @type {any} */
  const actions = {
    kinds: null,
    last: 0,
    page: (/** @type {string} */ kind, /** @type {number} */ offset) =>
      model.send({ type: 'page', kind, offset }),
    search: (/** @type {string} */ words, /** @type {number} */ start) =>
      model.send({ type: 'search', query: words, start }),
    example: (/** @type {number} */ number) =>
      model.send({ type: 'example', number }),
    rows: (/** @type {number} */ offset, /** @type {boolean} */ least) =>
      model.send({ type: 'rows', offset, least }),
    change: (/** @type {any} */ changes) =>
      model.send({ type: 'change', changes })
  };
  const drawSection = {
    _overview: () => {
      const overview = model.get('_overview');
      if (!overview.sets) {
        return;
      }
      actions.last = overview.examples + overview.held_out - 1;
      parts.totals.replaceChildren(totalsSection(overview), formatBox);
    },
    _readings: () => {
      const failed = model.get('_state') === 'failed';
      formatBox.replaceChildren(
        formatSection(model.get('_readings'), actions.change, failed)
      );
      if (failed) {
        status.after(formatBox);
      } else {
        parts.totals.append(formatBox);
      }
    },
    _lengths: () =>
      parts.lengths.replaceChildren(
        lengthsSection(model.get('_lengths'), actions.change)
      ),
    _page: () => {
      const page = model.get('_page');
      actions.kinds = page.kinds ?? actions.kinds;
      const focused = document.activeElement?.getAttribute('aria-label');
      parts.records.replaceChildren(
        recordsSection(page, model.get('_examples')[0]?.number ?? null, actions)
      );
      const again =
        focused &&
        parts.records.querySelector(`[aria-label="${CSS.escape(focused)}"]`);
      if (again instanceof HTMLElement) {
        again.focus();
      }
    },
    _examples: () => {
      parts.tokens.replaceChildren(
        tokensSection(model.get('_examples')[0], actions)
      );
      for (const row of parts.records.querySelectorAll('[aria-current]')) {
        row.removeAttribute('aria-current');
      }
      drawSection._page();
    },
    _rows: () =>
      model.get('_overview').sets &&
      parts.packed.replaceChildren(
        packedRowsSection(model.get('_rows'), model.get('_overview'), actions)
      )
  };
  const drawState = () => {
    const [now, note] = [model.get('_state'), model.get('_note')];
    const shown =
      now === 'ready'
        ? note
        : now === 'preparing'
          ? note
          : `${note || 'The view is closed.'}`;
    status.replaceChildren(
      ...(shown
        ? [
            h(
              'span',
              { class: now === 'failed' ? 'llf-error-text' : 'llf-secondary' },
              shown
            )
          ]
        : [])
    );
    if (now === 'failed') {
      status.append(
        h(
          'button',
          { type: 'button', onclick: () => model.send({ type: 'reload' }) },
          'Inspect again'
        )
      );
    }
    grid.hidden = now === 'preparing' || now === 'failed';
    notice.show(model.get('_code'));
  };
  /** @type {[string, () => void][]} */
  const listeners = [
    ['change:_state', drawState],
    ['change:_state', drawSection._readings],
    ['change:_note', drawState],
    ['change:_note', notice.enable],
    ['change:_code', drawState]
  ];
  for (const [name, draw] of Object.entries(drawSection)) {
    listeners.push([`change:${name}`, draw]);
  }
  for (const [event, draw] of listeners) {
    model.on(event, draw);
  }
  for (const draw of Object.values(drawSection)) {
    draw();
  }
  drawState();
  return () => {
    notice.close();
    for (const [event, draw] of listeners) {
      model.off(event, draw);
    }
  };
}

export default { initialize, render };
