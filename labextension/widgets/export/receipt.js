// The receipt of an export: the checks, and the quantizations as a table and as bars.

import { h } from '../shared/dom.js';
import { formatBytes, formatNumber } from '../../src/numbers';
import { svg } from '../shared/svg.js';

/** @import { Bar, Receipt } from './types' */

const ROW = 20; // height of a row of the chart
const NAME_WIDTH = 90;
const BAR_WIDTH = 130;
const VALUE_WIDTH = 80;
const MAX_NAME = 12; // characters that fit into the width of the names

/**
 * Draws the checks, and below them the quantizations if there are any.
 * @param {Receipt} receipt
 * @param {string[]} heads of the table of checks
 */
export function receiptSections(receipt, heads) {
  const sections = [checksSection(receipt, heads)];
  if (receipt.rows.length) {
    sections.push(quantizationsSection(receipt));
  }
  return sections;
}

function checksSection(
  /** @type {Receipt} */ receipt,
  /** @type {string[]} */ heads
) {
  const rows = receipt.checks.map(({ cells, passed, detail }) => {
    const [name, result, ...values] = cells;
    return h(
      'tr',
      { class: passed ? null : 'is-failed' },
      h('th', { scope: 'row' }, name),
      h(
        'td',
        { class: 'llf-Export-result' },
        h('span', { 'aria-hidden': 'true' }, passed ? '✓ ' : '✗ '),
        result
      ),
      ...values.map((value, place) =>
        h(
          'td',
          {},
          value,
          place === 0 && detail
            ? h('div', { class: 'llf-secondary llf-small' }, detail)
            : null
        )
      )
    );
  });
  return h(
    'section',
    { 'aria-label': 'Receipt' },
    h('h3', {}, 'Receipt'),
    h('p', { class: 'llf-secondary' }, receipt.summary),
    table(heads, rows, 'Checks of the written files')
  );
}

function quantizationsSection(/** @type {Receipt} */ receipt) {
  const rows = receipt.rows.map(({ cells: [name, ...values] }) =>
    h(
      'tr',
      {},
      h('th', { scope: 'row' }, name),
      ...values.map(value => h('td', { class: 'llf-num' }, value))
    )
  );
  return h(
    'section',
    { 'aria-label': 'Quantizations' },
    h('h3', {}, 'Quantizations'),
    table(receipt.heads, rows, 'Quantizations', 'llf-num'),
    chart(receipt.bars)
  );
}

function table(
  /** @type {string[]} */ heads,
  /** @type {HTMLTableRowElement[]} */ rows,
  /** @type {string} */ label,
  /** @type {string} */ numbers = ''
) {
  return h(
    'div',
    {
      class: 'llf-Export-scroll',
      tabindex: '0',
      role: 'group',
      'aria-label': label
    },
    h(
      'table',
      { class: 'llf-Table', 'aria-label': label },
      h(
        'thead',
        {},
        h(
          'tr',
          {},
          ...heads.map((head, place) =>
            h(
              'th',
              { scope: 'col', class: place ? numbers || null : null },
              head
            )
          )
        )
      ),
      h('tbody', {}, ...rows)
    )
  );
}

/** Draws size and KL divergence of each quantization as bars, each from 0 to the largest one. */
function chart(/** @type {Bar[]} */ bars) {
  const columns = /** @type {const} */ ([
    ['bytes', 'size', formatBytes, 'f1'],
    ['kl', 'KL divergence, nats', formatNumber, 'f2']
  ]);
  const height = ROW * (bars.length + 1);
  const width = NAME_WIDTH + 2 * (BAR_WIDTH + VALUE_WIDTH);
  /** @type {Node[]} */
  const parts = bars.map((bar, place) =>
    svg(
      'text',
      { x: 0, y: ROW * (place + 1) + 14, class: 't' },
      bar.name.length > MAX_NAME
        ? `${bar.name.slice(0, MAX_NAME - 1)}…`
        : bar.name
    )
  );
  columns.forEach(([key, label, format, fill], column) => {
    const left = NAME_WIDTH + column * (BAR_WIDTH + VALUE_WIDTH);
    const most = Math.max(...bars.map(bar => bar[key] ?? 0)) || 1;
    parts.push(svg('text', { x: left, y: 14 }, label));
    bars.forEach((bar, place) => {
      const value = bar[key];
      const length = Math.max(1, ((value ?? 0) / most) * BAR_WIDTH);
      const top = ROW * (place + 1);
      if (value !== null) {
        parts.push(
          svg('rect', {
            x: left,
            y: top + 4,
            width: length,
            height: ROW - 8,
            class: fill
          })
        );
      }
      parts.push(
        svg(
          'text',
          { x: left + (value === null ? 0 : length) + 6, y: top + 14 },
          format(value)
        )
      );
    });
  });
  const spoken = bars
    .map(
      bar =>
        `${bar.name}: ${formatBytes(bar.bytes)}, ${formatNumber(bar.kl)} nats`
    )
    .join('; ');
  return svg(
    'svg',
    {
      class: 'llf-Figure llf-Export-chart',
      viewBox: `0 0 ${width} ${height}`,
      role: 'img',
      'aria-label': `Size and KL divergence. ${spoken}`
    },
    ...parts
  );
}
