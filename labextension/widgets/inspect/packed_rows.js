import { h } from '../shared/dom.js';
import { formatCount, withUnit } from '../../src/numbers';
import { svg } from '../shared/svg.js';
import { linkButton, withoutSuffix } from './elements.js';

/** @import { Actions, Overview, PackedRows } from './types' */

/** Draws packed rows with the boundaries of their examples. */
export function packedRowsSection(
  /** @type {PackedRows | {total?: undefined}} */ rows,
  /** @type {Pick<Overview, 'packing_fill' | 'cutoff'>} */ overview,
  /** @type {Actions} */ actions
) {
  const section = h('section', {
    'aria-label': 'Packed rows'
  });
  const fill = `${(100 * overview.packing_fill).toFixed(1)} % full`;
  if (!rows.total) {
    const reason = overview.packing_fill
      ? `Packing is off; with packing: true, rows of ${formatCount(overview.cutoff)} would be ${fill}.`
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
  rows.rows.forEach((row, line) => {
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
        if (event.key === 'Enter' || event.key === ' ') {
          event.preventDefault(); // Space would scroll
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
        `${formatCount(row.filled)} of ${formatCount(rows.capacity)}`
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
        `${withUnit(rows.total, 'row')} of ${formatCount(rows.capacity)}, ${fill}. Examples do not attend to each other; position ids restart at 0 in each.`
      ),
      h(
        'span',
        { class: 'llf-push llf-secondary llf-small' },
        `${formatCount(rows.offset + 1)} to ${formatCount(next)} of ${formatCount(rows.total)}`
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
