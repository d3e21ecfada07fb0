import { createButton } from '../shared/buttons.js';
import { h, setText } from '../shared/dom.js';

/** @import { Context } from '../shared/model' */

/**
 * @typedef {{ id: string, values: string[], state: string, step: string, result: string, best: boolean }} Line
 * @typedef {{ keys: string[], metric: string, live: boolean, rows: Line[] }} Lines
 */

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
  /** @type {Map<string, HTMLElement>} */
  const buttons = new Map();

  const draw = () => {
    /** @type {Lines} */
    const view = model.get('view');
    if (!view.rows) {
      return;
    }
    const ended = view.rows.filter(row =>
      ['finished', 'stopped', 'failed'].includes(row.state)
    ).length;
    setText(count, `${ended} of ${view.rows.length} runs finished`);
    stop.hidden = !view.live;
    const title = (
      /** @type {Node | string} */ text,
      /** @type {string} */ name = ''
    ) => h('th', { scope: 'col', class: name }, text);
    head.replaceChildren(
      h(
        'tr',
        {},
        ...view.keys.map(key => title(h('code', {}, key), 'llf-num')),
        title('State'),
        title('Step', 'llf-num'),
        title(view.metric, 'llf-num'),
        h('td', {})
      )
    );
    const lines = view.rows.map(row => {
      if (!buttons.has(row.id)) {
        const node = createButton(
          'Monitor',
          () => model.send({ type: 'monitor', id: row.id }),
          'llf-link'
        );
        node.setAttribute(
          'aria-label',
          `Monitor of ${view.keys.map((key, place) => `${key} ${row.values[place]}`).join(', ')}`
        );
        buttons.set(row.id, h('td', {}, node));
      }
      const cells = [
        ...row.values.map((value, place) =>
          h(
            place ? 'td' : 'th',
            { scope: place ? null : 'row', class: 'llf-num' },
            value
          )
        ),
        h(
          'td',
          {},
          h(
            'span',
            { class: `llf-State is-${row.state}` },
            row.state === 'created' ? 'queued' : row.state
          )
        ),
        h('td', { class: 'llf-num' }, row.step),
        h(
          'td',
          { class: 'llf-num' },
          row.best ? h('b', {}, row.result) : row.result
        )
      ];
      const last = /** @type {HTMLElement} */ (buttons.get(row.id));
      last.firstElementChild?.setAttribute(
        'aria-expanded',
        String(row.id === model.get('open_run'))
      );
      return { cells, last };
    });
    lines.forEach(({ cells, last }, index) => {
      const line = body.children[index] ?? body.appendChild(h('tr', {}, last));
      while (line.firstChild !== last) {
        line.firstChild?.remove();
      }
      last.before(...cells);
    });
    setText(note, model.get('note'));
    note.hidden = !model.get('note');
  };
  model.on('change', draw);
  draw();
  return () => model.off('change', draw);
}
