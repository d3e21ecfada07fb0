import { createButton } from '../shared/buttons.js';
import {
  drawIfChanged,
  drawKeyed,
  h,
  keepFocus,
  setText
} from '../shared/dom.js';
import { formatCount, withUnit } from '../../src/numbers';
import { linkButton, withoutSuffix } from './elements.js';

/** @import { Actions, NotablePage, RecordPage, RecordRow, SearchPage } from './types' */

/** @type {Record<string, string>} */
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

/**
 * Creates the pages of unusual records, with a filter and a search. The controls stay while pages arrive.
 * @param {Actions} actions
 */
export function recordsSection(actions) {
  /** @type {RecordPage | null} */
  let page = null;
  const choose = h('select', {
    'aria-label': 'Show',
    onchange: event => actions.page(event.target.value, 0)
  });
  const searchBox = h('input', {
    type: 'text',
    placeholder: 'Search texts',
    'aria-label': 'Search texts',
    onkeydown: (/** @type {KeyboardEvent} */ event) => {
      if (event.key !== 'Enter') {
        return;
      }
      if (searchBox.value) {
        actions.search(searchBox.value, 0);
      } else {
        actions.page('all', 0);
      }
    }
  });
  const range = h('span', {
    class: 'llf-secondary llf-small llf-push',
    role: 'status'
  });
  const first = linkButton('First', () => goTo(0));
  const next = linkButton('Next', () => goTo(nextOffset(page)));
  const row = h(
    'div',
    { class: 'llf-row' },
    choose,
    searchBox,
    range,
    first,
    next
  );
  const note = h(
    'p',
    { class: 'llf-secondary llf-small llf-Inspect-note' },
    'Lines and rows are counted from 1.'
  );
  const body = h('tbody');
  const list = h(
    'table',
    {
      class: 'llf-Table llf-Rows',
      'aria-label': 'Records that are dropped, truncated, duplicated or leaked'
    },
    h(
      'thead',
      {},
      h(
        'tr',
        {},
        ...['What', 'Record', 'Reason'].map(head =>
          h('th', { scope: 'col' }, head)
        )
      )
    ),
    body
  );
  const empty = h('p', { class: 'llf-secondary' });
  const drop = createButton('', () =>
    actions.change({ drop_duplicates: true })
  );
  const fail = createButton('Fail on dropped records', () =>
    actions.change({ stop_on_dropped: true })
  );
  const box = h(
    'section',
    { 'aria-label': 'Records' },
    h('h3', {}, 'Records'),
    row,
    note,
    list,
    empty,
    h('div', { class: 'llf-row llf-Inspect-actions' }, drop, fail)
  );
  let drawnQuery = '';

  function goTo(/** @type {number | null} */ offset) {
    if (page === null || offset === null) {
      return;
    }
    if (page.kind === 'search') {
      actions.search(page.query, offset);
    } else {
      actions.page(page.kind, offset);
    }
  }

  /**
   * Shows a page.
   * @param {RecordPage | null} newPage null before the first one has come
   * @param {NotablePage['kinds'] | null} kinds number of records of each kind
   * @param {number | null} shown number of the example that is shown
   */
  function draw(newPage, kinds, shown) {
    page = newPage;
    drawControls(kinds);
    const rows = page?.rows ?? [];
    note.hidden = list.hidden = !rows.length;
    empty.hidden = Boolean(rows.length);
    setText(empty, emptyText(page));
    keepFocus(
      body,
      () =>
        drawKeyed(
          body,
          rows,
          JSON.stringify,
          one => recordRow(one, actions),
          (node, { number }) => {
            if (number !== null && number === shown) {
              node.setAttribute('aria-current', 'true');
            } else {
              node.removeAttribute('aria-current');
            }
          }
        ),
      () => choose
    );
  }

  function drawControls(/** @type {NotablePage['kinds'] | null} */ kinds) {
    const isSearch = page?.kind === 'search';
    const total = Object.entries(kinds ?? {}).reduce(
      (sum, [kind, count]) => (NOT_IN_TOTAL.includes(kind) ? sum : sum + count),
      0
    );
    drawIfChanged(choose, [kinds, isSearch], () => [
      ...Object.entries(RECORD_KINDS).map(([kind, label]) =>
        h(
          'option',
          { value: kind },
          kinds
            ? `${label} (${formatCount(kind === 'all' ? total : (kinds[kind] ?? 0))})`
            : label
        )
      ),
      ...(isSearch ? [h('option', { value: 'search' }, 'found')] : [])
    ]);
    choose.value = page?.kind ?? 'all';
    const query = page?.query ?? '';
    if (query !== drawnQuery) {
      drawnQuery = searchBox.value = query;
    }
    setText(range, rangeText(page));
    keepFocus(
      row,
      () => {
        first.hidden = !page?.offset;
        next.hidden = nextOffset(page) === null;
      },
      () => choose
    );
    const duplicates = kinds?.doubled ?? 0;
    drop.hidden = !duplicates;
    setText(drop, `Drop ${withUnit(duplicates, 'duplicate')}`);
    fail.hidden = !kinds?.dropped;
  }

  return { box, draw };
}

/** Whether a page is one of a search. @param {RecordPage} page @returns {page is SearchPage} */
function isOfSearch(page) {
  return page.kind === 'search';
}

/** Returns the offset of the next page; null on the last one. @param {RecordPage | null} page */
function nextOffset(page) {
  if (page === null) {
    return null;
  }
  if (isOfSearch(page)) {
    return page.next;
  }
  const end = page.offset + page.rows.length;
  return end < page.total ? end : null;
}

/** Says which records are shown. @param {RecordPage | null} page */
function rangeText(page) {
  if (page === null) {
    return '';
  }
  const { rows, offset } = page;
  if (isOfSearch(page)) {
    return `${rows.length} found`;
  }
  return rows.length
    ? `${offset + 1} to ${offset + rows.length} of ${formatCount(page.total)}`
    : '';
}

/** Says why there are no records. @param {RecordPage | null} page */
function emptyText(page) {
  if (page === null) {
    return '';
  }
  return isOfSearch(page)
    ? `No text contains “${page.query}”${page.next === null ? '' : ' so far'}.`
    : 'No records of this kind.';
}

/** Draws a record; its name shows its tokens. @param {RecordRow} record @param {Actions} actions */
function recordRow(
  { dataset, where, number, kind = 'found', reason },
  actions
) {
  const name = `${withoutSuffix(dataset)} ${where}`;
  return h(
    'tr',
    { class: `is-${kind}` },
    h('td', {}, RECORD_KINDS[kind] ?? kind),
    h(
      'td',
      {},
      number === null ? name : linkButton(name, () => actions.example(number))
    ),
    h('td', {}, reason)
  );
}
