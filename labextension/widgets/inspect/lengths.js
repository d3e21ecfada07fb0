import { h } from '../shared/dom.js';
import {
  formatBytes,
  formatCount,
  formatDuration,
  withUnit
} from '../../src/numbers';
import { svg } from '../shared/svg.js';
import { linkButton, table } from './elements.js';

/** @import { Change, Lengths } from './types' */

/** Draws a histogram of the lengths with the cutoff, and a table of what other cutoffs would truncate. */
export function lengthsSection(
  /** @type {Lengths | {edges?: undefined}} */ data,
  /** @type {Change} */ change
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
      'aria-label': `Lengths of examples: median ${withUnit(data.median, 'token')}; ${data.longer} exceed the cutoff of ${data.cutoff}`
    },
    svg('text', { x: 0, y: 10 }, 'examples')
  );
  data.counts.forEach((count, place) => {
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
          `${withUnit(count, 'example')} of ${data.edges[place]} to ${data.edges[place + 1] - 1} tokens`
        )
      )
    );
  });
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
        formatCount(Math.round(highest * part))
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
        tick ? formatCount(tokens) : '0 tokens'
      )
    );
  }
  picture.append(
    svg('path', { class: 'mark', d: `M${x(data.median)} 18V${base}` }),
    svg(
      'text',
      { class: 't', x: x(data.median) + 5, y: 22 },
      `median ${formatCount(data.median)}`
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
        `cutoff ${formatCount(data.cutoff)}: ${withUnit(data.longer, 'example')} ${data.longer === 1 ? 'is' : 'are'} longer`
      )
    );
  }
  /** @type {(string | Node)[][]} */
  const rows = data.cutoffs.map(one => [
    formatCount(one.cutoff),
    formatCount(one.cut),
    formatCount(one.lost),
    `${(100 * one.lost_answers).toFixed(1)} %`,
    formatCount(one.rows),
    one.seconds === null ? '–' : formatDuration(one.seconds),
    formatBytes(one.memory),
    one.cutoff === data.cutoff
      ? 'now'
      : linkButton('Use', () => change({ cutoff_len: one.cutoff }), {
          'aria-label': `Use ${formatCount(one.cutoff)}`
        })
  ]);
  const timed = data.speed
    ? ` Epoch: at ${withUnit(data.speed, 'token')} per second, the speed of your last run of this model.`
    : ' Epoch: known after the first run of this model on this machine.';
  if (!rows.length) {
    section.append(
      picture,
      h(
        'p',
        { class: 'llf-secondary llf-small llf-Inspect-note' },
        `Length of a pair: the prompt with its longer response. ${formatCount(data.longer)} were truncated to ${formatCount(data.cutoff)} tokens.`
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
