// Examples with the answers of all models, sorted by a metric, and a vote on each.

import { createButton, setDisabled } from '../shared/buttons.js';
import { h } from '../shared/dom.js';
import { formatCount } from '../../src/numbers';

/** @import { Column, ExamplePage, ExampleRow, MetricRow, Send } from './types' */

const PAGE = 10;
/** Returns the key of an example: its data set and the number of its record. */
export function exampleKey(
  /** @type {{source?: string, index?: number}} */ { source, index }
) {
  return JSON.stringify([source, index]);
}

/** @type {[string, string][]} */
const VOTES = [
  ['win', 'Better'],
  ['tie', 'Tie'],
  ['lose', 'Worse']
];

/**
 * @param {ExamplePage} page
 * @param {Column[]} columns
 * @param {MetricRow[]} metrics
 * @param {{name: string}[]} groups data and tasks
 * @param {Record<string, string>} orders label by name
 * @param {Send} send
 */
export function examplesSection(page, columns, metrics, groups, orders, send) {
  const { group, metric, order } = page;
  let wanted = { group, metric, order, offset: 0 };
  const show = (/** @type {object} */ change) => {
    wanted = { ...wanted, offset: 0, ...change }; // also what was chosen since the page came
    send({ type: 'examples', ...wanted });
  };
  const previous = createButton('Previous', () =>
    show({ offset: page.offset - PAGE })
  );
  const next = createButton('Next', () => show({ offset: page.offset + PAGE }));
  setDisabled(previous, page.offset === 0);
  setDisabled(next, page.offset + PAGE >= page.total);
  const last = Math.min(page.offset + PAGE, page.total);
  return h(
    'section',
    { 'aria-label': 'Examples' },
    h(
      'div',
      { class: 'llf-row' },
      h('h3', {}, 'Examples'),
      groups.length > 1
        ? select(
            'Data of the examples',
            groups.map(({ name }, at) => [String(at), name]),
            String(page.group),
            group => show({ group: Number(group) })
          )
        : null,
      select(
        'Order of the examples',
        Object.entries(orders).filter(
          ([name]) => columns.length > 1 || name !== 'changed'
        ),
        page.order,
        order => show({ order })
      ),
      select(
        'Metric of the examples',
        metrics.map(({ name, label }) => [name, label]),
        page.metric,
        metric => show({ metric })
      ),
      previous,
      next,
      h(
        'span',
        { class: 'llf-secondary', role: 'status' },
        `${page.total ? page.offset + 1 : 0} to ${last} of ${formatCount(page.total)}`
      )
    ),
    ...page.rows.map(row => exampleBox(row, columns, page.answered, send))
  );
}

/**
 * @param {string} label
 * @param {[string, string][]} options value and text
 * @param {string} chosen
 * @param {(value: string) => void} act
 */
function select(label, options, chosen, act) {
  return h(
    'select',
    {
      'aria-label': label,
      onchange: (/** @type {any} */ event) => act(event.target.value)
    },
    ...options.map(([value, text]) =>
      h('option', { value, selected: value === chosen }, text)
    )
  );
}

/**
 * @param {ExampleRow} row
 * @param {Column[]} columns
 * @param {boolean} answered
 * @param {Send} send
 */
function exampleBox(row, columns, answered, send) {
  const name = `Example ${row.index + 1} of ${row.source}`;
  const of = { source: row.source, index: row.index };
  const losses = createButton(
    'Loss of each token',
    () => send({ type: 'tokens', ...of }),
    'llf-link'
  );
  losses.setAttribute('aria-label', `Loss of each token: ${name}`);
  return h(
    'article',
    {
      class: 'llf-Evaluation-example',
      'aria-label': name,
      'data-key': exampleKey(of)
    },
    h(
      'header',
      { class: 'llf-row llf-secondary llf-small' },
      h('span', {}, name),
      losses
    ),
    h('pre', { class: 'llf-Evaluation-prompt' }, row.prompt),
    row.reference === null
      ? null
      : h(
          'div',
          {},
          h('b', { class: 'llf-secondary llf-small' }, 'Expected'),
          h('pre', {}, row.reference)
        ),
    h(
      'div',
      { class: 'llf-Evaluation-answers' },
      ...row.models.map((one, at) =>
        h(
          'div',
          {},
          h('b', { class: 'llf-small' }, columns[at]?.name ?? ''),
          h('span', { class: 'llf-secondary llf-small' }, ` ${one.score}`),
          one.answer === null ? null : h('pre', {}, one.answer),
          ...one.verdicts.map(verdict)
        )
      )
    ),
    answered && columns.length > 1
      ? voteButtons(row, columns, name, send)
      : null
  );
}

/**
 * What a judge said of an answer; its replies are shown on a click.
 * @param {ExampleRow['models'][0]['verdicts'][0]} verdict
 */
function verdict({ text, replies }) {
  return replies
    ? h(
        'details',
        { class: 'llf-small' },
        h('summary', { class: 'llf-secondary' }, text),
        h('pre', {}, replies)
      )
    : h('div', { class: 'llf-secondary llf-small' }, text);
}

/**
 * @param {ExampleRow} row
 * @param {Column[]} columns
 * @param {string} name
 * @param {Send} send
 */
function voteButtons(row, columns, name, send) {
  const judged = columns[columns.length - 1].name;
  return h(
    'div',
    { class: 'llf-row', role: 'group', 'aria-label': `Your vote: ${name}` },
    h('span', { class: 'llf-secondary llf-small' }, `${judged} is`),
    ...VOTES.map(([vote, label]) => {
      const chosen = row.vote === vote;
      const button = createButton(label, () =>
        send({
          type: 'vote',
          source: row.source,
          index: row.index,
          vote: chosen ? null : vote
        })
      );
      button.setAttribute('aria-pressed', String(chosen));
      return button;
    })
  );
}
