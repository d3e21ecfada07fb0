// Answers that were sampled to learn from: a table for each step, with what every answer earned.

import { h, setText } from '../shared/dom.js';
import { stepSlider } from '../shared/step_slider.js';
import { formatNumber as quantity } from '../../src/numbers';

/** @import { Feed } from './feed.js' */

/** @typedef {[number | null, (number | null)[], string, string]} Completion reward, rewards by function, prompt, text */
/** @typedef {{step: number, count: number, mean: number | null, rows: Completion[]}} CompletionStep */

let viewCount = 0; // views, for the ids that tie headings to tables

/** @param {Feed} feed */
export function completionsSection(feed) {
  const own = `llf-samples-${++viewCount}`;
  let sorted = -1; // by which function; -1 by the whole reward
  const slider = stepSlider('Step of the sampled completions', draw);
  const note = h('span', { class: 'llf-2 llf-small' });
  const head = h('tr');
  const body = h('tbody');
  const table = h(
    'table',
    { class: 'llf-Table is-ruled llf-Samples-table', 'aria-labelledby': own },
    h('thead', {}, head),
    body
  );
  const section = h(
    'section',
    { class: 'llf-Answers', 'aria-labelledby': own },
    h(
      'div',
      { class: 'llf-row' },
      h('h3', { id: own }, 'Sampled completions and rewards'),
      note
    ),
    slider.box,
    h('div', { class: 'llf-Samples-scroll' }, table)
  );

  function draw() {
    /** @type {{functions?: string[], steps?: CompletionStep[]}} */
    const { functions = [], steps = [] } = feed.get('completions') ?? {};
    section.hidden = !steps.length;
    const now = slider.show(
      steps.map(({ step }) => step),
      'no completions yet'
    );
    if (now < 0) {
      return;
    }
    if (sorted >= functions.length) {
      sorted = -1;
    }
    drawHead(functions);
    const { step, count, mean, rows } = steps[now];
    const shown =
      rows.length < count
        ? `, ${rows.length} of them shown, from highest to lowest reward`
        : '';
    setText(
      note,
      `step ${step.toLocaleString('en')}: ${count.toLocaleString('en')} completion${count === 1 ? '' : 's'}${shown}; mean reward ${reward(mean)}`
    );
    const text = JSON.stringify([functions, rows, sorted]);
    if (body.dataset.text === text) {
      return;
    } // what is scrolled or marked stays
    body.dataset.text = text;
    const value = (/** @type {Completion} */ row) =>
      (sorted < 0 ? row[0] : row[1][sorted]) ?? -Infinity;
    body.replaceChildren(
      ...[...rows]
        .sort((one, other) => value(other) - value(one) || 0)
        .map(([whole, each, prompt, answer]) =>
          h(
            'tr',
            {},
            h('td', { class: 'llf-num' }, h('b', {}, reward(whole))),
            ...functions.map((_, place) =>
              h('td', { class: 'llf-num llf-2' }, reward(each[place] ?? null))
            ),
            h('td', {}, long(prompt, 'llf-2')),
            h('td', {}, long(answer, ''))
          )
        )
    );
  }

  /** Names of the columns; those of numbers are buttons that sort by them. */
  function drawHead(/** @type {string[]} */ functions) {
    const text = JSON.stringify([functions, sorted]);
    if (head.dataset.text === text) {
      return;
    }
    const within = head.contains(document.activeElement);
    head.dataset.text = text;
    const column = (/** @type {string} */ name, /** @type {number} */ place) =>
      h(
        'th',
        {
          class: 'llf-num',
          scope: 'col',
          'aria-sort': place === sorted ? 'descending' : 'none'
        },
        functions.length
          ? h(
              'button',
              {
                type: 'button',
                class: 'llf-link',
                title: `Sort by ${name}`,
                onclick: () => {
                  sorted = place;
                  draw();
                }
              },
              name,
              place === sorted ? ' ↓' : ''
            )
          : name
      );
    head.replaceChildren(
      column('reward', -1),
      ...functions.map(column),
      h('th', { scope: 'col' }, 'Prompt'),
      h('th', { scope: 'col' }, 'Completion')
    );
    if (within) {
      head.querySelectorAll('button')[sorted + 1]?.focus();
    }
  }

  /** A text that is scrolled where it is long: with the keyboard too. */
  function long(/** @type {string} */ text, /** @type {string} */ look) {
    return h(
      'div',
      {
        class: `llf-Samples-text ${look}`,
        tabindex: text.length > 160 ? '0' : null
      },
      text || '(empty)'
    );
  }

  function reward(/** @type {number | null} */ value) {
    return value === null ? '–' : quantity(value).replace('-', '−');
  }

  feed.on('completions', draw);
  draw();
  return { box: section };
}
