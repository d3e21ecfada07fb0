// Runs side by side: the row that says what the curves are drawn over, the table, answers to the same prompts.

let comparesShown = 0;
const OVERS = { step: 'step', tokens: 'tokens', time: 'time' };

/** @typedef {{label: string, cells: string[], best: number[], code: boolean}} Line */
/** @typedef {{title: string, note: string, lines: Line[]}} Part */
/** @typedef {{title: string, help: string, log: boolean, lines: [string, string][]}} Curves */

/** @param {{model: any, el: HTMLElement}} context */
function render({ model, el }) {
  const own = `llf-compare-${++comparesShown}`;
  const set = (/** @type {string} */ name, /** @type {any} */ value) => { model.set(name, value); model.save_changes(); };
  const curve = h('select', { id: `${own}-curve`, onchange: () => set('curve', curve.value) });
  const help = h('p', { class: 'llf-2 llf-small' });
  const over = h('select', { id: `${own}-over`, onchange: () => set('over', over.value) },
    ...Object.entries(OVERS).map(([value, label]) => h('option', { value }, label)));
  const smoothing = h('select', { id: `${own}-smoothing`, onchange: () => set('smoothing', Number(smoothing.value)) },
    ...model.get('choices').map((/** @type {number} */ steps) => h('option', { value: String(steps) }, steps ? `${steps} steps` : 'none')));
  const log = h('input', { type: 'checkbox', onchange: () => set('log', log.checked) });
  const every = h('input', { type: 'checkbox', onchange: () => set('every', every.checked) });
  const table = h('div', { class: 'llf-Compare-scroll', tabindex: '0', role: 'region', 'aria-label': 'Table of the runs' });
  const answers = h('div');
  el.classList.add('llf-Part');
  el.append(
    h('div', { class: 'llf-row llf-Compare-controls', role: 'group', 'aria-label': 'How the curves are drawn' },
      h('label', { class: 'llf-2', for: `${own}-curve` }, 'Curve'), curve,
      h('label', { class: 'llf-2', for: `${own}-over` }, 'Over'), over,
      h('label', { class: 'llf-2', for: `${own}-smoothing` }, 'Smoothing'), smoothing,
      h('label', {}, log, 'log scale'), h('label', {}, every, 'every step')),
    help, table, answers);

  /** Rebuilt only where other curves have come: an open list stays open. */
  function drawCurves() {
    /** @type {Curves[]} */
    const groups = model.get('curves');
    const text = JSON.stringify(groups);
    if (curve.dataset.text !== text) {
      curve.dataset.text = text;
      curve.replaceChildren(...groups.map(({ title, lines }) => h('optgroup', { label: title },
        ...lines.map(([value, label]) => h('option', { value }, lines.length === 1 ? title : `${title}: ${label}`)))));
    }
    curve.value = model.get('curve');
    const group = groups.find(({ lines }) => lines.some(([name]) => name === curve.value));
    say(help, group?.help ?? '');
    log.disabled = !group?.log;
  }

  function drawControls() {
    drawCurves();
    over.value = model.get('over');
    smoothing.value = String(model.get('smoothing'));
    log.checked = model.get('log');
    every.checked = model.get('every');
  }

  function draw() {
    const { runs, parts, answers: said } = model.get('view');
    if (!runs) return;
    const line = (/** @type {Line} */ { label, cells, best, code }) => h('tr', {},
      h('th', { scope: 'row' }, code ? h('code', {}, label) : label),
      ...cells.map((cell, place) => h('td', { class: 'llf-num' }, best.includes(place) ? h('b', {}, cell) : cell)));
    table.replaceChildren(h('table', { class: 'llf-Table llf-Compare-table', 'aria-label': 'Runs side by side' },
      h('thead', {}, h('tr', {}, h('td'), ...runs.map((/** @type {any} */ run) => h('th', { scope: 'col', class: 'llf-num', title: run.id }, sample(run), run.name)))),
      h('tbody', {}, h('tr', {}, h('th', { scope: 'row' }, 'State'), ...runs.map((/** @type {any} */ run) =>
        h('td', { class: 'llf-num' }, h('span', { class: `llf-State is-${run.state}` }, run.state))))),
      ...parts.map((/** @type {Part} */ part) => h('tbody', {},
        h('tr', {}, h('td', { colspan: String(runs.length + 1), class: 'llf-Compare-part' }, h('b', {}, part.title), ' ', h('span', { class: 'llf-2' }, part.note))),
        ...part.lines.map(line)))));
    answers.replaceChildren(...(said.length ? [h('h3', {}, 'Answers to the same prompts'), h('table', { class: 'llf-Table llf-Compare-answers' },
      h('thead', {}, h('tr', {}, ...['Prompt', 'Base', ...runs.map((/** @type {any} */ run) => run.name)].map(head => h('th', { scope: 'col' }, head)))),
      h('tbody', {}, ...said.map((/** @type {any} */ row) => h('tr', {}, ...[row.prompt, row.base, ...row.texts].map(text => h('td', {}, text ?? '–'))))))] : []));
  }

  /** A short piece of the run's line. */
  function sample(/** @type {{color: string, dash: string}} */ { color, dash }) {
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    for (const [name, value] of Object.entries({ width: '34', height: '6', 'aria-hidden': 'true' })) svg.setAttribute(name, value);
    const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
    path.setAttribute('d', 'M0 3H34');
    path.setAttribute('style', `stroke: ${color}; stroke-width: 2; ${dash === 'solid' ? '' : `stroke-dasharray: ${dash.replaceAll('px', '')}`}`);
    svg.append(path);
    return svg;
  }

  model.on('change:view', draw);
  for (const name of ['curves', 'curve', 'over', 'smoothing', 'log', 'every']) model.on(`change:${name}`, drawControls);
  const unfit = fitPlots(el, '.llf-Compare');
  draw();
  drawControls();
  return () => {
    unfit();
    model.off('change:view', draw);
    for (const name of ['curves', 'curve', 'over', 'smoothing', 'log', 'every']) model.off(`change:${name}`, drawControls);
  };
}

export default { render };
