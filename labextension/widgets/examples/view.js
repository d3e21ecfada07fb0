// The training examples behind a curve: those of one step, or outliers, with their losses.

import '../shared/llf.css';
import './examples.css';
import {
  createButton,
  disableControls,
  setDisabled
} from '../shared/buttons.js';
import { drawKeyed, h, setText, uniqueId } from '../shared/dom.js';
import { codeNotice } from '../shared/foreign_code.js';
import { initialize } from '../shared/initialize.js';
import { KERNEL_LOST, onKernelLost } from '../shared/kernel.js';
import { formatCount, formatNumber } from '../../src/numbers';

/** @import { Context } from '../shared/model' */

/** @type {Record<string, string>} */
const EXAMPLE_KINDS = {
  hardest: 'hardest',
  odd: 'unexpectedly high loss',
  unlearned: 'not learned',
  easy: 'unexpectedly low loss'
};
const PAGE_ROWS = 10;

/** @typedef {{number: number, first: number | null, last: number | null, excess: number | null, seen: number, tokens: number, step: number, dataset?: string, where?: string, segments?: [string, boolean][]}} Row */

/**
 * Draws the table of examples. The kernel computes the rows; this view requests a page of them.
 * @param {Context} context
 */
function render({ model, el }) {
  const idPrefix = uniqueId('llf-examples');
  const kinds = h(
    'select',
    {
      id: `${idPrefix}-kind`,
      onchange: () => {
        model.send({ kind: kinds.value, offset: 0 });
      }
    },
    ...Object.entries(EXAMPLE_KINDS).map(([value, label]) =>
      h('option', { value }, label)
    ),
    h('option', { value: 'step' }, 'of one step')
  );
  const step = h('input', {
    type: 'text',
    id: `${idPrefix}-step`,
    inputmode: 'numeric',
    onkeydown: (/** @type {any} */ event) => {
      if (event.key === 'Enter') {
        showStep();
      }
    }
  });
  const note = h('span', { class: 'llf-secondary llf-small', role: 'status' });
  const body = h('tbody');
  const table = h(
    'table',
    {
      class: 'llf-Table llf-Examples-rows',
      'aria-label': 'Examples and their losses'
    },
    h(
      'thead',
      {},
      h(
        'tr',
        {},
        ...['Record', 'Loss', 'First loss', 'Excess', 'Epochs', 'Text'].map(
          (head, place) =>
            h('th', { scope: 'col', class: place < 5 ? 'llf-num' : null }, head)
        )
      )
    ),
    body
  );
  const previous = createButton('Previous', () => turnPage(-1));
  const next = createButton('Next', () => turnPage(1));
  const range = h('span', { class: 'llf-secondary llf-small' });
  el.classList.add('llf', 'llf-Examples');
  const notice = codeNotice({
    purpose: 'The tokenizer needs it to show the texts.',
    label: 'Allow this code and show the texts',
    progress: 'Reading the data…',
    onAllow: () => model.send({ type: 'allow' }),
    fallback: () => kinds
  });
  el.append(
    h(
      'div',
      { class: 'llf-row' },
      h('h3', {}, 'Examples'),
      h('label', { class: 'llf-secondary', for: `${idPrefix}-kind` }, 'Show'),
      kinds,
      h('label', { class: 'llf-secondary', for: `${idPrefix}-step` }, 'step'),
      step,
      h('button', { type: 'button', onclick: showStep }, 'Show examples'),
      note
    ),
    notice.box,
    table,
    h('div', { class: 'llf-row' }, previous, next, range)
  );

  function showStep() {
    const wanted = Number(step.value);
    if (!step.value.trim() || !Number.isInteger(wanted) || wanted < 1) {
      setText(
        note,
        `Step is "${step.value}". Expected an integer of at least 1.`
      );
      step.focus();
      return;
    }
    model.send({ step: wanted, offset: 0 });
  }

  function turnPage(/** @type {number} */ direction) {
    const { query } = model.get('_page');
    model.send({ ...query, offset: query.offset + direction * PAGE_ROWS });
  }

  function draw() {
    const page = model.get('_page');
    if (!page.query) {
      return;
    }
    const { query, total } = page;
    /** @type {Row[]} */
    const rows = page.rows;
    kinds.value = query.kind ?? 'step';
    kinds
      .querySelector('[value=step]')
      ?.toggleAttribute('disabled', query.step === undefined);
    if (query.step !== undefined && document.activeElement !== step) {
      step.value = String(query.step);
    }
    const label = (/** @type {Row} */ row) =>
      row.where ?? (model.get('_code').length ? `#${row.number + 1}` : '…');
    drawKeyed(
      body,
      rows.map(row => ({ ...row, where: label(row) })),
      JSON.stringify,
      rowOf
    );
    table.hidden = !rows.length;
    setDisabled(previous, query.offset <= 0);
    setDisabled(next, query.offset + PAGE_ROWS >= total);
    setText(
      range,
      rows.length
        ? `${query.offset + 1} to ${query.offset + rows.length} of ${formatCount(total)}`
        : emptyText(query, page.seen)
    );
    for (const button of [previous, next]) {
      button.hidden = total <= PAGE_ROWS;
    }
  }

  /** Draws the losses and the text of one example. */
  function rowOf(/** @type {Row} */ row) {
    return h(
      'tr',
      {},
      h('td', { class: 'llf-num', title: row.dataset }, row.where),
      h('td', { class: 'llf-num' }, formatLoss(row.last)),
      h(
        'td',
        { class: 'llf-num llf-secondary' },
        row.seen > 1 ? formatLoss(row.first) : ''
      ),
      h(
        'td',
        { class: 'llf-num' },
        row.excess === null
          ? ''
          : `${row.excess >= 0 ? '+' : '−'}${formatNumber(Math.abs(row.excess))}`
      ),
      h('td', { class: 'llf-num llf-secondary' }, String(row.seen)),
      h(
        'td',
        {},
        h(
          'div',
          { class: 'llf-Examples-text', tabindex: '0' },
          ...(row.segments ?? []).map(([text, trained]) =>
            h('span', { class: trained ? 'is-trained' : 'llf-secondary' }, text)
          )
        )
      )
    );
  }

  function formatLoss(/** @type {number | null} */ loss) {
    return loss === null ? 'NaN' : formatNumber(loss);
  }

  function emptyText(/** @type {any} */ query, /** @type {number} */ seen) {
    if (!seen) {
      return 'No example losses yet. They are recorded from the first logged step on, but not for streamed data.';
    }
    return query.step === undefined
      ? `No examples: ${EXAMPLE_KINDS[query.kind]}.`
      : `No example losses were recorded for step ${query.step}.`;
  }

  function drawNote() {
    setText(note, model.get('_note'));
    notice.enable();
  }

  function drawCode() {
    notice.show(model.get('_code'));
    draw();
  }

  const listeners = {
    'change:_page': draw,
    'change:_note': drawNote,
    'change:_code': drawCode
  };
  for (const [event, act] of Object.entries(listeners)) {
    model.on(event, act);
  }
  drawNote();
  drawCode();
  const endWait = onKernelLost(model, () => {
    setText(note, `${KERNEL_LOST}. Run the cell again to see more examples.`);
    disableControls(el);
  });
  return () => {
    endWait();
    notice.close();
    for (const [event, act] of Object.entries(listeners)) {
      model.off(event, act);
    }
  };
}

export default { initialize, render };
