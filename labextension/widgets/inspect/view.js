// The prepared data: totals, lengths, unusual records, tokens of one example, packed rows.

import '../shared/llf.css';
import './inspect.css';
import { createButton, disableControls } from '../shared/buttons.js';
import { drawIfChanged, h, keepFocus, setText } from '../shared/dom.js';
import { codeNotice } from '../shared/foreign_code.js';
import { initialize } from '../shared/initialize.js';
import { KERNEL_LOST, onKernelLost } from '../shared/kernel.js';
import { formatSection } from './data_format.js';
import { lengthsSection } from './lengths.js';
import { packedRowsSection } from './packed_rows.js';
import { recordsSection } from './records.js';
import { tokensSection } from './tokens.js';
import { totalsSection } from './totals.js';

/** @import { Context } from '../shared/model' */
/** @import { Actions, NotablePage, Overview, RecordPage } from './types' */

/**
 * Draws the view. A section is drawn again when its trait changes; what a reader uses meanwhile keeps the focus.
 * @param {Context} context
 */
function render({ model, el }) {
  el.classList.add('llf', 'llf-Inspect');
  const send = (/** @type {object} */ content) => model.send(content);
  const statusText = h('span');
  const reload = createButton('Inspect again', () => send({ type: 'reload' }));
  const status = h(
    'div',
    { class: 'llf-row', role: 'status', tabindex: '-1' },
    statusText,
    reload
  );
  const notice = codeNotice({
    purpose: 'The tokenizer needs it to show the tokens.',
    label: 'Allow this code and inspect again',
    progress: 'Reading the data…',
    onAllow: () => send({ type: 'allow' }),
    fallback: () => status
  });
  /** @type {Actions} */
  const actions = {
    last: 0,
    page: (kind, offset) => send({ type: 'page', kind, offset }),
    search: (query, start) => send({ type: 'search', query, start }),
    example: number => send({ type: 'example', number }),
    rows: (offset, least) => send({ type: 'rows', offset, least }),
    change: changes => send({ type: 'change', changes })
  };
  const records = recordsSection(actions);
  const formatBox = h('div', {});
  const totals = h('div', {});
  const totalsColumn = h('div', {}, totals, formatBox);
  const lengths = h('div', {});
  const tokens = h('div', {});
  const packed = h('div', { tabindex: '-1' });
  const grid = h(
    'div',
    { class: 'llf-Inspect-grid' },
    h('div', {}, totalsColumn, h('div', {}, records.box)),
    h('div', {}, lengths, tokens),
    packed
  );
  el.replaceChildren(status, notice.box, grid);
  let alive = true;
  /** @type {NotablePage['kinds'] | null} */
  let kinds = null; // number of records of each kind; a page of a search has none

  const drawSection = {
    _overview: () => {
      /** @type {Overview | {sets?: undefined}} */
      const overview = model.get('_overview');
      if (!overview.sets) {
        return;
      }
      actions.last = overview.examples + overview.held_out - 1;
      drawIfChanged(totals, overview, () => [
        totalsSection(overview, actions.change)
      ]);
    },
    _readings: () => {
      const failed = model.get('_state') === 'failed';
      const readings = model.get('_readings');
      drawIfChanged(formatBox, [readings, failed], () => [
        formatSection(readings, actions.change, failed)
      ]);
      if (failed) {
        formatBox.querySelector('details')?.toggleAttribute('open', true);
      }
      if (failed && formatBox.parentElement === totalsColumn) {
        status.after(formatBox);
      } else if (!failed && formatBox.parentElement !== totalsColumn) {
        totalsColumn.append(formatBox);
      }
    },
    _lengths: () => {
      const data = model.get('_lengths');
      drawIfChanged(lengths, data, () => [
        lengthsSection(data, actions.change)
      ]);
    },
    _page: () => {
      /** @type {RecordPage | {kind?: undefined}} */
      const found = model.get('_page');
      const page = found.kind === undefined ? null : found;
      kinds = page && 'kinds' in page ? page.kinds : kinds;
      records.draw(page, kinds, model.get('_examples')[0]?.number ?? null);
    },
    _examples: () => {
      const [example = null] = model.get('_examples');
      drawIfChanged(
        tokens,
        [example, actions.last],
        () => [tokensSection(example, actions)],
        () => tokens.querySelector('.llf-Example-body') ?? status
      );
      drawSection._page();
    },
    _rows: () => {
      const [rows, overview] = [model.get('_rows'), model.get('_overview')];
      if (overview.sets) {
        drawIfChanged(
          packed,
          [rows, overview],
          () => [packedRowsSection(rows, overview, actions)],
          () => packed
        );
      }
    }
  };

  /** Returns what is done now or why it ended; without a kernel also what to do. */
  function noteText(/** @type {string} */ state, /** @type {string} */ note) {
    if (alive) {
      return note || (state === 'closed' ? 'The view is closed.' : '');
    }
    if (state === 'preparing') {
      return `${KERNEL_LOST} before the data was prepared. Run the cell again.`;
    }
    return state === 'ready'
      ? `${KERNEL_LOST}. Run the cell again to see more of the data.`
      : `${note} ${KERNEL_LOST} since. Run the cell again.`;
  }

  function drawState() {
    const [state, note] = [model.get('_state'), model.get('_note')];
    statusText.className =
      state === 'failed' ? 'llf-error-text' : 'llf-secondary';
    setText(statusText, noteText(state, note));
    keepFocus(
      el,
      () => {
        reload.hidden = !alive || state !== 'failed';
        grid.hidden = state === 'preparing' || state === 'failed';
        notice.show(alive ? model.get('_code') : []);
      },
      () => status
    );
  }

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
  const endWait = onKernelLost(model, () => {
    alive = false;
    drawState();
    disableControls(el);
  });
  return () => {
    endWait();
    notice.close();
    for (const [event, draw] of listeners) {
      model.off(event, draw);
    }
  };
}

export default { initialize, render };
