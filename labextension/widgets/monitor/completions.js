// Completions that were sampled for training: a table for each step, with their rewards.

import {
  drawIfChanged,
  drawKeyed,
  h,
  setText,
  uniqueId
} from '../shared/dom.js';
import { stepSlider } from '../shared/step_slider.js';
import { formatCount, formatNumber, withUnit } from '../../src/numbers';

/** @import { Feed } from './feed.js' */

/** @typedef {[number | null, (number | null)[], string, string]} Completion reward, rewards by function, prompt, text */
/** @typedef {{step: number, count: number, mean: number | null, rows: Completion[]}} CompletionStep */

/**
 * Draws the sampled completions of one step as a table that can be sorted by the value of each reward function.
 * @param {Feed} feed
 */
export function completionsSection(feed) {
  const headingId = uniqueId('llf-samples');
  let sortColumn = -1; // index of a reward function; -1: the weighted sum
  const slider = stepSlider('Step of the sampled completions', draw);
  const note = h('span', { class: 'llf-secondary llf-small' });
  const head = h('tr');
  const body = h('tbody');
  const table = h(
    'table',
    {
      class: 'llf-Table is-ruled llf-Samples-table',
      'aria-labelledby': headingId
    },
    h('thead', {}, head),
    body
  );
  const section = h(
    'section',
    { class: 'llf-Answers', 'aria-labelledby': headingId },
    h(
      'div',
      { class: 'llf-row' },
      h('h3', { id: headingId }, 'Sampled completions and rewards'),
      note
    ),
    slider.box,
    h('div', { class: 'llf-Samples-scroll' }, table)
  );

  function draw() {
    /** @type {{functions?: string[], steps?: CompletionStep[]}} */
    const { functions = [], steps = [] } = feed.get('completions') ?? {};
    section.hidden = !steps.length;
    const slot = slider.show(
      steps.map(({ step }) => step),
      'no completions yet'
    );
    if (slot < 0) {
      return;
    }
    if (sortColumn >= functions.length) {
      sortColumn = -1;
    }
    drawHead(functions);
    const { step, count, mean, rows } = steps[slot];
    const shown =
      rows.length < count
        ? `, ${rows.length} of them shown, from highest to lowest reward`
        : '';
    setText(
      note,
      `step ${formatCount(step)}: ${withUnit(count, 'completion')}${shown}; mean reward ${formatReward(mean)}`
    );
    const sortValue = (/** @type {Completion} */ row) =>
      (sortColumn < 0 ? row[0] : row[1][sortColumn]) ?? -Infinity;
    const sorted = [...rows].sort(
      (one, other) => sortValue(other) - sortValue(one) || 0
    );
    drawKeyed(
      body,
      sorted,
      row => JSON.stringify([functions, row]),
      row => completionRow(row, functions)
    );
  }

  /** Draws a completion with its rewards. */
  function completionRow(
    /** @type {Completion} */ [whole, each, prompt, answer],
    /** @type {string[]} */ functions
  ) {
    return h(
      'tr',
      {},
      h('td', { class: 'llf-num' }, h('b', {}, formatReward(whole))),
      ...functions.map((_, place) =>
        h(
          'td',
          { class: 'llf-num llf-secondary' },
          formatReward(each[place] ?? null)
        )
      ),
      h('td', {}, scrollableText(prompt, 'llf-secondary')),
      h('td', {}, scrollableText(answer, ''))
    );
  }

  /** Draws the names of the columns; those of rewards are buttons that sort. */
  function drawHead(/** @type {string[]} */ functions) {
    const column = (/** @type {string} */ name, /** @type {number} */ place) =>
      h(
        'th',
        {
          class: 'llf-num',
          scope: 'col',
          'aria-sort': place === sortColumn ? 'descending' : 'none'
        },
        functions.length
          ? h(
              'button',
              {
                type: 'button',
                class: 'llf-link',
                title: `Sort by ${name}`,
                'aria-label': name,
                onclick: () => {
                  sortColumn = place;
                  draw();
                }
              },
              name,
              place === sortColumn ? ' ↓' : ''
            )
          : name
      );
    drawIfChanged(head, [functions, sortColumn], () => [
      column('reward', -1),
      ...functions.map(column),
      h('th', { scope: 'col' }, 'Prompt'),
      h('th', { scope: 'col' }, 'Completion')
    ]);
  }

  /** Returns a text in a box that scrolls if the text is long, with the keyboard too. */
  function scrollableText(
    /** @type {string} */ text,
    /** @type {string} */ look
  ) {
    return h(
      'div',
      {
        class: `llf-Samples-text ${look}`,
        tabindex: text.length > 160 ? '0' : null
      },
      text || '(empty)'
    );
  }

  function formatReward(/** @type {number | null} */ value) {
    return value === null ? '–' : formatNumber(value).replace('-', '−');
  }

  feed.on('completions', draw);
  draw();
  return { box: section };
}
