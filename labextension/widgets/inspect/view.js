// What the loss sees: totals, lengths, records to look at, tokens, packed rows.

import '../shared/llf.css';
import './inspect.css';
import { h } from '../shared/dom.js';
import { codeNotice } from '../shared/foreign_code.js';
import { initialize } from '../shared/initialize.js';
import {
  formatBytes as bytes,
  formatDuration as duration
} from '../../src/numbers';

/** @import { Context } from '../shared/model' */

const NUMBER = new Intl.NumberFormat('en');
const SVG = 'http://www.w3.org/2000/svg';
/** @type {Record<string, string>} */
const STATES = { prompt: '', trained: 'tr', cut: 'cu' };
/** @type {Record<string, string>} */
const MASKS = {
  prompt: 'not in the loss',
  trained: 'in the loss',
  cut: 'truncated'
};
const KINDS = {
  all: 'all',
  dropped: 'dropped',
  cut: 'truncated',
  divided: 'split',
  doubled: 'duplicated',
  leaked: 'leaked',
  unanswered: 'without a response',
  longest: 'longest'
};
const ASIDE = ['unanswered', 'longest'];
const HINT =
  'Hover over a token or use the arrow keys to see its id, position and role.';
const HEAD = 160; // tokens of a turn that are shown at once, at its beginning and at its end

/**
 * An SVG element; strings become text nodes.
 * @param {string} tag
 * @param {Record<string, string | number>} attributes
 * @param {...(Node | string)} children
 */
function s(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    element.setAttribute(name, String(value));
  }
  element.append(...children);
  return element;
}

/** A button that looks like a link. */
function link(
  /** @type {string} */ label,
  /** @type {() => void} */ act,
  /** @type {Record<string, any>} */ more = {}
) {
  return h(
    'button',
    { type: 'button', class: 'llf-link', onclick: act, ...more },
    label
  );
}

/** A data set's name without its suffix. */
function short(/** @type {string} */ name) {
  return name.replace(
    /\.(jsonl?|csv|tsv|parquet|arrow|txt)(\.(gz|bz2|xz|zst))?$/,
    ''
  );
}

function share(/** @type {number} */ part, /** @type {number} */ whole) {
  return `${whole ? Math.round((100 * part) / whole) : 0} %`;
}

/** @typedef {{class?: string, label?: string, text?: number[], row?: (place: number) => Record<string, string | null>}} TableLook `text` are the columns that hold no numbers */

/** @param {string[]} heads @param {(string | Node)[][]} rows @param {TableLook} [look] */
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

function totals(/** @type {any} */ overview) {
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
    h('span', { class: 'llf-ellipsis', title: row[0] }, short(row[0])),
    ...row.slice(1).map(NUMBER.format),
    share(row[6], row[5])
  ]);
  const held = overview.held_out
    ? `, ${NUMBER.format(overview.held_out)} of them held out`
    : '';
  const streamed = overview.streamed
    ? ` Streamed: the first ${NUMBER.format(overview.streamed)} records of each set are shown.`
    : '';
  const how = overview.cached
    ? 'loaded from the cache'
    : `prepared in ${overview.seconds.toFixed(1)} s`;
  const copies = overview.copies
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
    ...copies,
    h(
      'p',
      { class: 'llf-2 llf-small llf-Inspect-note' },
      `${overview.sets.map((/** @type {any} */ one) => `${one.dataset}: ${one.reading}`).join('. ')}. ` +
        `Template: ${overview.template}. ${NUMBER.format(overview.examples + overview.held_out)} examples${held}, ${how}.${streamed}`
    )
  );
}

/** How rows are read, and drop-downs that correct it, for sets that have no entry in dataset_info.json. */
function reading(
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
  const body = h('div', { class: 'llf-Reading' });
  const draw = (
    /** @type {string} */ format,
    /** @type {Record<string, string>} */ columns
  ) => {
    const chosen = { ...columns };
    const choose = (
      /** @type {string} */ label,
      /** @type {string[]} */ options,
      /** @type {string} */ now,
      /** @type {(value: string) => void} */ act
    ) =>
      h(
        'label',
        { class: 'llf-Reading-field' },
        h('span', { class: 'llf-2' }, label),
        h(
          'select',
          { onchange: (/** @type {any} */ event) => act(event.target.value) },
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
      choose('format', Object.keys(found.roles), format, value =>
        draw(value, value === first.format ? first.columns : {})
      ),
      ...found.roles[format].map((/** @type {string} */ role) =>
        choose(role, ['', ...names], chosen[role] ?? '', value => {
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
      link('Detect automatically', () =>
        change({ dataset_format: null, dataset_columns: null })
      )
    );
  };
  const known =
    first.format in found.roles ? first.format : Object.keys(found.roles)[0];
  draw(known, known === first.format ? first.columns : {});
  const fits = first.error
    ? 'no format matches'
    : `${first.format}, ${Math.round(100 * first.fits)} % of the first rows match`;
  return h(
    'details',
    { class: 'llf-Inspect-note', open },
    h('summary', {}, `Data format: ${fits}`),
    h(
      'p',
      { class: 'llf-2 llf-small' },
      first.error ?? `Reason: ${first.reason}.`
    ),
    body
  );
}

/** Bars of the lengths with the cutoff, and what other cutoffs cost. */
function lengths(
  /** @type {any} */ found,
  /** @type {(changes: any) => void} */ change
) {
  const section = h(
    'section',
    { 'aria-label': 'Lengths', class: 'at-lengths' },
    h('h3', {}, 'Lengths and cutoff_len')
  );
  if (!found.edges) {
    return section;
  }
  const [left, right, top, base] = [40, 642, 26, 116];
  const most = Math.max(...found.counts, 1);
  const last = found.edges[found.edges.length - 1];
  const x = (/** @type {number} */ tokens) =>
    left + ((right - left) * Math.min(tokens, last)) / last;
  const picture = s(
    'svg',
    {
      class: 'llf-Figure',
      viewBox: '0 0 650 136',
      role: 'img',
      'aria-label': `Lengths of examples: median ${found.median} tokens; ${found.longer} exceed the cutoff of ${found.cutoff}`
    },
    s('text', { x: 0, y: 10 }, 'examples')
  );
  found.counts.forEach(
    (/** @type {number} */ count, /** @type {number} */ place) => {
      const height = ((base - top) * count) / most;
      const cut = found.edges[place] >= found.cutoff ? ' is-cut' : '';
      const [from, to] = [x(found.edges[place]), x(found.edges[place + 1])];
      picture.append(
        s(
          'rect',
          {
            class: `bar${cut}`,
            x: from + 0.5,
            y: base - height,
            width: Math.max(0.5, to - from - 1),
            height
          },
          s(
            'title',
            {},
            `${NUMBER.format(count)} examples of ${found.edges[place]} to ${found.edges[place + 1] - 1} tokens`
          )
        )
      );
    }
  );
  picture.append(
    s('path', {
      class: 'axis',
      d: `M${left} ${base}V${top}M${left} ${base}H${right}`
    })
  );
  for (const part of [0, 0.5, 1]) {
    const y = base - (base - top) * part;
    picture.append(
      s('path', { class: 'axis', d: `M${left} ${y}h-4` }),
      s(
        'text',
        { class: 'e', x: left - 7, y: y + 4 },
        NUMBER.format(Math.round(most * part))
      )
    );
  }
  for (let tick = 0; tick <= 6; tick += 1) {
    const tokens = Math.round((last * tick) / 6);
    picture.append(
      s('path', { class: 'axis', d: `M${x(tokens)} ${base}v4` }),
      s(
        'text',
        { class: 'm', x: x(tokens), y: 131 },
        tick ? NUMBER.format(tokens) : '0 tokens'
      )
    );
  }
  picture.append(
    s('path', { class: 'mark', d: `M${x(found.median)} 18V${base}` }),
    s(
      'text',
      { class: 't', x: x(found.median) + 5, y: 22 },
      `median ${NUMBER.format(found.median)}`
    )
  );
  if (found.cutoff <= last) {
    const far = x(found.cutoff) > 440;
    const place = {
      class: far ? 't e' : 't',
      x: x(found.cutoff) + (far ? -6 : 6),
      y: 36
    };
    picture.append(
      s('path', { class: 'limit', d: `M${x(found.cutoff)} 14V${base}` }),
      s(
        'text',
        place,
        `cutoff ${NUMBER.format(found.cutoff)}: ${NUMBER.format(found.longer)} examples are longer`
      )
    );
  }
  /** @type {(string | Node)[][]} */
  const rows = found.cutoffs.map((/** @type {any} */ one) => [
    NUMBER.format(one.cutoff),
    NUMBER.format(one.cut),
    NUMBER.format(one.lost),
    `${(100 * one.lost_answers).toFixed(1)} %`,
    NUMBER.format(one.rows),
    one.seconds === null ? '–' : duration(one.seconds),
    bytes(one.memory),
    one.cutoff === found.cutoff
      ? 'now'
      : link(`Use ${NUMBER.format(one.cutoff)}`, () =>
          change({ cutoff_len: one.cutoff })
        )
  ]);
  const timed = found.speed
    ? ` Epoch: at the ${NUMBER.format(Math.round(found.speed))} tokens per second of your last run of this model.`
    : ' Epoch: known after the first run of this model on this machine.';
  if (!rows.length) {
    section.append(
      picture,
      h(
        'p',
        { class: 'llf-2 llf-small llf-Inspect-note' },
        `Length of a pair: the prompt with its longer response. ${NUMBER.format(found.longer)} were truncated to ${NUMBER.format(found.cutoff)} tokens.`
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
            found.cutoffs[place].cutoff === found.cutoff ? 'is-current' : null
        })
      }
    ),
    h(
      'p',
      { class: 'llf-2 llf-small llf-Inspect-note' },
      `Memory and packed rows are estimates.${timed}`
    )
  );
  return section;
}

/** Records to look at: a filter, a search, a page. */
function records(
  /** @type {any} */ page,
  /** @type {number | null} */ shown,
  /** @type {any} */ act
) {
  const kinds = page.kinds ?? act.kinds;
  const sum = Object.entries(kinds ?? {}).reduce(
    (total, [kind, count]) => (ASIDE.includes(kind) ? total : total + count),
    0
  );
  const choose = h(
    'select',
    {
      'aria-label': 'Show',
      onchange: event => act.page(event.target.value, 0)
    },
    ...Object.entries(KINDS).map(([kind, label]) =>
      h(
        'option',
        { value: kind, selected: page.kind === kind },
        `${label} (${NUMBER.format(kind === 'all' ? sum : (kinds?.[kind] ?? 0))})`
      )
    ),
    page.kind === 'search'
      ? h('option', { value: 'search', selected: true }, 'found')
      : null
  );
  const words = h('input', {
    type: 'text',
    placeholder: 'Search texts',
    'aria-label': 'Search texts',
    value: page.query ?? '',
    onkeydown: event => {
      if (event.key !== 'Enter') {
        return;
      }
      if (event.target.value) {
        act.search(event.target.value, 0);
      } else {
        act.page('all', 0);
      }
    }
  });
  const rows = page.rows ?? [];
  const first = page.kind === 'search' ? null : page.offset + 1;
  const where =
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
  const go = (/** @type {number} */ to) =>
    page.kind === 'search'
      ? act.search(page.query, to)
      : act.page(page.kind, to);
  const copies = kinds?.doubled ?? 0;
  const label = (/** @type {any} */ row) =>
    `${short(row.dataset)} ${row.where}`;
  return h(
    'section',
    { 'aria-label': 'Records', class: 'at-rows' },
    h('h3', {}, 'Records'),
    h(
      'div',
      { class: 'llf-row' },
      choose,
      words,
      h('span', { class: 'llf-2 llf-small llf-push', role: 'status' }, where),
      page.offset > 0 ? link('First', () => go(0)) : null,
      next === null || next === undefined ? null : link('Next', () => go(next))
    ),
    rows.length
      ? h(
          'p',
          { class: 'llf-2 llf-small llf-Inspect-note' },
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
              : link(label(row), () => act.example(row.number)),
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
          { class: 'llf-2' },
          page.kind === 'search'
            ? `No text contains “${page.query}”${next === null ? '' : ' so far'}.`
            : page.kind
              ? 'No records of this kind.'
              : ''
        ),
    h(
      'div',
      { class: 'llf-row llf-Inspect-acts' },
      copies
        ? h(
            'button',
            {
              type: 'button',
              onclick: () => act.change({ drop_duplicates: true })
            },
            `Drop ${NUMBER.format(copies)} duplicates`
          )
        : null,
      kinds?.dropped
        ? h(
            'button',
            {
              type: 'button',
              onclick: () => act.change({ stop_on_dropped: true })
            },
            'Fail on dropped records'
          )
        : null
    )
  );
}

/** One example, token by token. Arrow keys walk through the tokens. */
function tokens(/** @type {any} */ example, /** @type {any} */ act) {
  const legend = h(
    'div',
    { class: 'llf-Legend' },
    ...[
      ['', 'Abc', 'not in the loss'],
      ['tr', 'Abc', 'in the loss'],
      ['cu', 'Abc', 'truncated']
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
    { 'aria-label': 'Tokens', class: 'at-tokens' },
    h('h3', {}, 'Tokens in the loss'),
    legend
  );
  if (!example) {
    return section;
  }
  const tip = h(
    'p',
    { class: 'llf-2 llf-small llf-Tip-line', role: 'status' },
    HINT
  );
  const spans = /** @type {HTMLElement[]} */ ([]);
  const facts = /** @type {any[]} */ ([]);
  const total = example.tokens;
  let at = -1;
  const point = (/** @type {number} */ place) => {
    if (!spans[place]) {
      return;
    }
    spans[at]?.classList.remove('is-hover');
    at = place;
    spans[at].classList.add('is-hover');
    const { text, id, state, role, position, total: length, kept } = facts[at];
    const row =
      example.row === undefined || state === 'truncated'
        ? ''
        : `, row ${example.row} at ${example.offset + kept}`;
    tip.textContent = `${JSON.stringify(text)}, id ${id} · position ${position + 1} of ${length}${row} · ${role ? `${role}, ` : ''}${MASKS[state]}`;
  };
  let side = { total, position: 0, kept: 0, name: '' };
  const drawTurn = (/** @type {any} */ turn) => {
    const line = h('div', { class: 'llf-Tokens' });
    const gap = turn.tokens.length > 2 * HEAD + 20;
    const hidden = h('span', { hidden: true, class: 'llf-Tokens-rest' });
    turn.tokens.forEach(
      (
        /** @type {any} */ [text, id, state, special],
        /** @type {number} */ place
      ) => {
        const span = h(
          'span',
          {
            class: [STATES[state], special ? 'sp' : ''].join(' ').trim() || null
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
        span.addEventListener('mouseenter', () => point(number));
        const inside =
          gap && place >= HEAD && place < turn.tokens.length - HEAD;
        const parent = inside ? hidden : line;
        parent.append(span);
        if (text.includes('\n')) {
          parent.append(document.createElement('br'));
        }
        if (gap && place === HEAD) {
          const more = link(
            `… ${NUMBER.format(turn.tokens.length - 2 * HEAD)} tokens …`,
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

  /** A question once, and below it both of its answers side by side. */
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
            { class: 'llf-2 llf-small' },
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
        tip.textContent = HINT;
        spans[at]?.classList.remove('is-hover');
      },
      onkeydown: (/** @type {KeyboardEvent} */ event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) {
          return;
        }
        event.preventDefault();
        point(Math.min(spans.length - 1, Math.max(0, at + step)));
        spans[at].scrollIntoView({ block: 'nearest' });
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
        { class: 'llf-warned' },
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
        h('b', {}, `${short(example.dataset)} ${example.where}`),
        h('span', {}, counts, cut),
        h('span', { class: 'llf-2 llf-push' }, kind),
        example.number > 0
          ? link('Previous', () => act.example(example.number - 1))
          : null,
        example.number < act.last
          ? link('Next', () => act.example(example.number + 1))
          : null
      ),
      tip,
      body
    )
  );
  return section;
}

/** Packed rows with the borders of their examples. */
function packed(
  /** @type {any} */ rows,
  /** @type {any} */ overview,
  /** @type {any} */ act
) {
  const section = h('section', {
    'aria-label': 'Packed rows',
    class: 'at-packed'
  });
  const fill = `${(100 * overview.packing_fill).toFixed(1)} % full`;
  if (!rows.total) {
    const off = overview.packing_fill
      ? `Packing is off; with packing: true, rows of ${NUMBER.format(overview.cutoff)} would be ${fill}.`
      : 'Preference pairs are not packed.';
    section.append(h('h3', {}, 'Packed rows'), h('p', { class: 'llf-2' }, off));
    return section;
  }
  const [left, right, step] = [66, 1100, 22];
  const picture = s('svg', {
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
      s('text', { class: 't', x: 0, y: y + 12 }, `row ${row.row}`)
    );
    for (const [number, name, prompt, learned] of row.examples) {
      const [, set, where] = /^(?:(.*) )?(\w+ [\d,]+)$/.exec(name) ?? [
        '',
        '',
        name
      ];
      const label = set ? `${short(set)} ${where}` : where;
      const width = (prompt + learned) * scale;
      const group = s(
        'g',
        {
          class: 'llf-Packed',
          role: 'button',
          tabindex: 0,
          'aria-label': `Example ${label}`
        },
        s(
          'title',
          {},
          `${label}: ${prompt} prompt tokens, ${learned} in the loss`
        ),
        s('rect', {
          class: 'p-prompt',
          x: place,
          y,
          width: Math.max(0.5, prompt * scale),
          height: 16
        }),
        s('rect', {
          class: 'p-train',
          x: place + prompt * scale,
          y,
          width: Math.max(0.5, learned * scale - 1),
          height: 16
        })
      );
      if (width > 7 * String(label).length + 8) {
        group.append(
          s('text', { class: 't', x: place + 4, y: y + 12 }, String(label))
        );
      }
      group.addEventListener('click', () => act.example(number));
      group.addEventListener('keydown', event => {
        if (event.key === 'Enter') {
          act.example(number);
        }
      });
      picture.append(group);
      place += width;
    }
    if (place < right - 1) {
      picture.append(
        s('rect', {
          class: 'p-rest',
          x: place,
          y,
          width: right - place,
          height: 16
        })
      );
    }
    picture.append(
      s(
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
        { class: 'llf-2' },
        `${NUMBER.format(rows.total)} rows of ${NUMBER.format(rows.capacity)}, ${fill}. Examples do not attend to each other; position ids restart at 0 in each.`
      ),
      h(
        'span',
        { class: 'llf-push llf-2 llf-small' },
        `${NUMBER.format(rows.offset + 1)} to ${NUMBER.format(next)} of ${NUMBER.format(rows.total)}`
      ),
      next < rows.total ? link('Next', () => act.rows(next, rows.least)) : null,
      link(rows.least ? 'In order' : 'Least full first', () =>
        act.rows(0, !rows.least)
      )
    ),
    picture
  );
  return section;
}

/** @param {Context} context */
function render({ model, el }) {
  el.classList.add('llf', 'llf-Inspect');
  const status = h('div', { class: 'llf-row', role: 'status' });
  const read = h('div', {});
  const code = h('div', {});
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
  el.replaceChildren(status, code, grid);
  /** @type {any} */
  const act = {
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
  const drawn = {
    _overview: () => {
      const overview = model.get('_overview');
      if (!overview.sets) {
        return;
      }
      act.last = overview.examples + overview.held_out - 1;
      parts.totals.replaceChildren(totals(overview), read);
    },
    _readings: () => {
      const failed = model.get('_state') === 'failed';
      read.replaceChildren(reading(model.get('_readings'), act.change, failed));
      if (failed) {
        status.after(read);
      } else {
        parts.totals.append(read);
      }
    },
    _lengths: () =>
      parts.lengths.replaceChildren(lengths(model.get('_lengths'), act.change)),
    _page: () => {
      const page = model.get('_page');
      act.kinds = page.kinds ?? act.kinds;
      const focused = document.activeElement?.getAttribute('aria-label');
      parts.records.replaceChildren(
        records(page, model.get('_examples')[0]?.number ?? null, act)
      );
      const again =
        focused &&
        parts.records.querySelector(`[aria-label="${CSS.escape(focused)}"]`);
      if (again instanceof HTMLElement) {
        again.focus();
      }
    },
    _examples: () => {
      parts.tokens.replaceChildren(tokens(model.get('_examples')[0], act));
      for (const row of parts.records.querySelectorAll('[aria-current]')) {
        row.removeAttribute('aria-current');
      }
      drawn._page();
    },
    _rows: () =>
      model.get('_overview').sets &&
      parts.packed.replaceChildren(
        packed(model.get('_rows'), model.get('_overview'), act)
      )
  };
  const state = () => {
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
              { class: now === 'failed' ? 'llf-failed' : 'llf-2' },
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
    const found = model.get('_code');
    code.replaceChildren(
      ...(found.length
        ? [
            codeNotice(found, 'The tokenizer needs it to show the tokens.', [
              h(
                'button',
                {
                  type: 'button',
                  onclick: () => model.send({ type: 'allow' })
                },
                'Allow this code and inspect again'
              )
            ])
          ]
        : [])
    );
  };
  /** @type {[string, () => void][]} */
  const listeners = [
    ['change:_state', state],
    ['change:_state', drawn._readings],
    ['change:_note', state],
    ['change:_code', state]
  ];
  for (const [name, draw] of Object.entries(drawn)) {
    listeners.push([`change:${name}`, draw]);
  }
  for (const [event, draw] of listeners) {
    model.on(event, draw);
  }
  for (const draw of Object.values(drawn)) {
    draw();
  }
  state();
  return () => {
    for (const [event, draw] of listeners) {
      model.off(event, draw);
    }
  };
}

export default { initialize, render };
