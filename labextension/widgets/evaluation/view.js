// Models measured on data: a table with verdicts, examples with the answers of all models, the loss of each token.

import '../shared/llf.css';
import './evaluation.css';
import { createButton, disableControls } from '../shared/buttons.js';
import { drawIfChanged, h, keepFocus, setText } from '../shared/dom.js';
import { codeNotice } from '../shared/foreign_code.js';
import { initialize } from '../shared/initialize.js';
import { KERNEL_LOST, onKernelLost } from '../shared/kernel.js';
import { exampleKey, examplesSection } from './examples.js';
import { metricsTable } from './metrics_table.js';
import { tokenLosses } from './token_losses.js';

/** @import { Context } from '../shared/model' */

/**
 * Draws the view. A part is drawn again when its trait changes; what a reader uses meanwhile keeps the focus.
 * @param {Context} context
 */
function render({ model, el }) {
  el.classList.add('llf', 'llf-Evaluation');
  const send = (/** @type {object} */ content) => model.send(content);
  const note = h('span');
  const bar = h('progress', { 'aria-label': 'Progress of the evaluation' });
  const stop = createButton('Stop', () => {
    setText(note, 'Stopping…');
    send({ type: 'stop' });
  });
  const again = createButton('Evaluate again', () => send({ type: 'again' }));
  const status = h(
    'div',
    { class: 'llf-row', role: 'status', tabindex: '-1' },
    note,
    bar,
    stop,
    again
  );
  const data = h('p', { class: 'llf-secondary' });
  const table = h('div', {});
  const examples = h('div', {});
  const tokens = h('div', {});
  const notice = codeNotice({
    purpose: 'A model needs it to be loaded.',
    label: 'Allow this code and evaluate',
    progress: 'Evaluating…',
    onAllow: () => send({ type: 'allow' }),
    fallback: () => status
  });
  el.replaceChildren(status, notice.box, data, table, examples);
  let alive = true; // whether the kernel hears of a click

  const draw = {
    _code: () => notice.show(alive ? model.get('_code') : []),
    _rows: () => {
      const [rows, columns, votes] = [
        model.get('_rows'),
        model.get('_columns'),
        model.get('_votes')
      ];
      drawIfChanged(table, [rows, columns, votes], () =>
        rows.length ? [metricsTable(rows, columns, votes)] : []
      );
      setText(
        data,
        model
          .get('_groups')
          .map((/** @type {any} */ group) => group.text)
          .join('; ')
      );
    },
    _examples: () => {
      const [page, columns, groups] = [
        model.get('_examples'),
        model.get('_columns'),
        model.get('_groups')
      ];
      const rows = model
        .get('_rows')
        .filter(
          (/** @type {any} */ row) =>
            !row.judge && row.group === groups[page.group]?.name
        );
      drawIfChanged(
        examples,
        [page, columns, rows.length, alive],
        () =>
          page.rows
            ? [
                examplesSection(
                  page,
                  columns,
                  rows,
                  groups,
                  model.get('_orders'),
                  send
                )
              ]
            : [],
        () => examples.querySelector('select') ?? status
      );
      if (!alive) {
        disableControls(examples);
      }
      draw._tokens();
    },
    _tokens: () => {
      const found = model.get('_tokens');
      const key = exampleKey(found);
      const place = [...examples.querySelectorAll('article')].find(
        node => node.dataset.key === key
      );
      if (!found.models || !place) {
        tokens.remove();
        return;
      }
      drawIfChanged(tokens, [found, model.get('_columns')], () => [
        tokenLosses(found, model.get('_columns'))
      ]);
      if (tokens.parentElement !== place) {
        place.append(tokens);
      }
    }
  };

  /** Returns what is done now or why it ended; without a kernel also what to do. */
  function noteText(/** @type {string} */ state) {
    if (alive) {
      return model.get('_note');
    }
    if (state === 'running') {
      return `${KERNEL_LOST}, which ended the evaluation. Run the cell again: complete results are used again.`;
    }
    return state === 'done'
      ? `${KERNEL_LOST}. Run the cell again to see more examples and to vote: nothing is measured twice.`
      : `${model.get('_note')} ${KERNEL_LOST} since. Run the cell again.`;
  }

  function drawState() {
    const state = model.get('_state');
    const running = alive && state === 'running';
    const [done, total] = model.get('_progress');
    note.className = state === 'failed' ? 'llf-error-text' : 'llf-secondary';
    setText(note, noteText(state));
    keepFocus(
      el,
      () => {
        bar.hidden = !running || !total;
        stop.hidden = !running;
        again.hidden =
          !alive ||
          (state !== 'stopped' &&
            !(state === 'failed' && model.get('_repeatable')));
        status.hidden = state === 'done' && !note.textContent;
      },
      () => status
    );
    if (total) {
      bar.max = total;
      bar.value = done;
    }
  }

  /** @type {[string, () => void][]} */
  const listeners = [
    ['change:_state', drawState],
    ['change:_note', drawState],
    ['change:_progress', drawState],
    ['change:_columns', draw._rows],
    ['change:_votes', draw._rows],
    ['change:_groups', draw._rows],
    ['change:_groups', draw._examples],
    ...Object.entries(draw).map(
      ([name, act]) =>
        /** @type {[string, () => void]} */ ([`change:${name}`, act])
    )
  ];
  for (const [event, act] of listeners) {
    model.on(event, act);
  }
  for (const act of [...Object.values(draw), drawState]) {
    act();
  }
  const endWait = onKernelLost(model, () => {
    alive = false;
    drawState();
    draw._code();
    draw._examples();
  });
  return () => {
    endWait();
    notice.close();
    for (const [event, act] of listeners) {
      model.off(event, act);
    }
  };
}

export default { initialize, render };
