import { createButton } from '../shared/buttons.js';
import { drawIfChanged, drawKeyed, h, setText } from '../shared/dom.js';

/** @import { Context } from '../shared/model' */

/**
 * @typedef {{ id: string, values: string[], state: string, finding: boolean, step: string, result: string, best: boolean }} Line
 * @typedef {{ keys: string[], metric: string, live: boolean, rows: Line[] }} Lines
 */

/** Says how many runs have finished, and how many have ended in another way. @param {Line[]} rows */
function outcomes(rows) {
  const count = (/** @type {string} */ state) =>
    rows.filter(row => row.state === state).length;
  return [
    `${count('finished')} of ${rows.length} runs finished`,
    ...['failed', 'stopped', 'lost']
      .filter(count)
      .map(state => `${count(state)} ${state}`)
  ].join(', ');
}

/**
 * Draws the runs of a sweep, one row each. Rows are updated in place, so that a focused button keeps the focus.
 * @param {Context} context
 */
export function sweepRunTable({ model, el }) {
  const stop = createButton('Stop sweep', () => model.send({ type: 'stop' }));
  stop.title =
    'Stops the current run with a checkpoint and removes the others from the queue. Resume starts them.';
  const count = h('span', { class: 'llf-secondary', role: 'status' });
  const head = h('thead', {});
  const body = h('tbody', {});
  const note = h('p', { class: 'llf-secondary', role: 'status' });
  el.replaceChildren(
    h(
      'section',
      { class: 'llf-Sweep-runs', 'aria-label': 'Runs of the sweep' },
      h('div', { class: 'llf-row' }, h('h3', {}, 'Sweep'), count, stop),
      h(
        'table',
        { class: 'llf-Table', 'aria-label': 'Runs of the sweep' },
        head,
        body
      ),
      note
    )
  );
  const draw = () => {
    /** @type {Lines} */
    const view = model.get('view');
    if (!view.rows) {
      return;
    }
    setText(count, outcomes(view.rows));
    stop.hidden = !view.live;
    const title = (
      /** @type {Node | string} */ text,
      /** @type {string} */ name = ''
    ) => h('th', { scope: 'col', class: name }, text);
    drawIfChanged(head, [view.keys, view.metric], () => [
      h(
        'tr',
        {},
        ...view.keys.map(key => title(h('code', {}, key), 'llf-num')),
        title('State'),
        title('Step', 'llf-num'),
        title(view.metric, 'llf-num'),
        h('td', {})
      )
    ]);
    drawKeyed(
      body,
      view.rows,
      row => row.id,
      row => runRow(row, view.keys),
      updateRow
    );
    setText(note, model.get('note'));
    note.hidden = !model.get('note');
  };

  /** Creates the row of a run: its values, and a button that opens its monitor. */
  function runRow(
    /** @type {Line} */ { id, values },
    /** @type {string[]} */ keys
  ) {
    const monitor = createButton(
      'Monitor',
      () => model.send({ type: 'monitor', id }),
      'llf-link'
    );
    monitor.setAttribute(
      'aria-label',
      `Monitor of ${keys.map((key, place) => `${key} ${values[place]}`).join(', ')}`
    );
    return h(
      'tr',
      {},
      ...values.map((value, place) =>
        h(
          place ? 'td' : 'th',
          { scope: place ? null : 'row', class: 'llf-num' },
          value
        )
      ),
      h('td', {}, h('span', {})),
      h('td', { class: 'llf-num' }),
      h('td', { class: 'llf-num' }),
      h('td', {}, monitor)
    );
  }

  /** Shows how far a run is. */
  function updateRow(
    /** @type {HTMLElement} */ node,
    /** @type {Line} */ { id, state, finding, step, result, best }
  ) {
    const cells = /** @type {HTMLElement[]} */ ([...node.children]).slice(-4);
    const [name, , , monitor] = cells.map(
      cell => /** @type {HTMLElement} */ (cell.firstElementChild)
    );
    name.className = `llf-State is-${state}${finding ? ' has-finding' : ''}`;
    setText(name, state);
    setText(cells[1], step);
    drawIfChanged(cells[2], [result, best], () => [
      best ? h('b', {}, result) : result
    ]);
    monitor.setAttribute('aria-expanded', String(id === model.get('open_run')));
  }

  model.on('change', draw);
  draw();
  return () => model.off('change', draw);
}
