// Runs side by side: a table, curves over a selectable x axis, completions of the same prompts.

import '../shared/llf.css';
import '../shared/plotly_colors.css';
import './compare.css';
import { plotlyChart } from '../shared/plotly_chart.js';
import { drawIfChanged, h, setText, uniqueId } from '../shared/dom.js';
import { disableControls } from '../shared/buttons.js';
import { initialize } from '../shared/initialize.js';
import { KERNEL_LOST, onKernelLost } from '../shared/kernel.js';
import { answerTable, runTable } from './run_table.js';
import { formatCount } from '../../src/numbers';

/** @import { Context } from '../shared/model' */
/** @import { ComparedRun } from './run_table.js' */

const X_AXES = { step: 'step', tokens: 'tokens', time: 'time' };
const AUTOMATIC = 'automatic';
/** Columns of a table that fits beside the chart. */
const BESIDE = 4;

/** @typedef {{title: string, help: string, log: boolean, lines: [string, string][]}} Curves */
/** Draws the comparison. The kernel computes table and figure. @param {Context} context */
function render({ model, el }) {
  const idPrefix = uniqueId('llf-compare');
  const set = (/** @type {string} */ name, /** @type {any} */ value) => {
    model.set(name, value);
    model.save_changes();
  };
  const add = h('select', {
    id: `${idPrefix}-add`,
    onchange: () => {
      if (add.value) {
        model.send({ type: 'add', run: add.value });
      }
      add.value = '';
    }
  });
  const curve = h('select', {
    id: `${idPrefix}-curve`,
    onchange: () => {
      set('curve', curve.value);
    }
  });
  const help = h('p', { class: 'llf-secondary llf-small' });
  const xAxis = h(
    'select',
    {
      id: `${idPrefix}-x-axis`,
      onchange: () => {
        set('x_axis', xAxis.value);
      }
    },
    ...Object.entries(X_AXES).map(([value, label]) =>
      h('option', { value }, label)
    )
  );
  const smoothing = h(
    'select',
    {
      id: `${idPrefix}-smoothing`,
      onchange: () => {
        set(
          'smoothing',
          smoothing.value === AUTOMATIC ? null : Number(smoothing.value)
        );
      }
    },
    h('option', { value: AUTOMATIC }, AUTOMATIC),
    ...model
      .get('choices')
      .map((/** @type {number} */ steps) =>
        h(
          'option',
          { value: String(steps) },
          steps ? `${formatCount(steps)} steps` : 'none'
        )
      )
  );
  const log = h('input', {
    type: 'checkbox',
    onchange: () => {
      set('log_scale', log.checked);
    }
  });
  const everyStep = h('input', {
    type: 'checkbox',
    onchange: () => {
      set('show_raw', everyStep.checked);
    }
  });
  const save = h(
    'button',
    {
      type: 'button',
      class: 'llf-push',
      onclick: () => model.send({ type: 'html' })
    },
    'Save as HTML'
  );
  const labelled = (
    /** @type {HTMLElement} */ control,
    /** @type {string} */ label
  ) =>
    h(
      'span',
      { class: 'llf-Compare-pair' },
      h('label', { class: 'llf-secondary', for: control.id }, label),
      control
    );
  const status = h('p', { role: 'status' });
  const table = runTable(id => model.send({ type: 'remove', run: id }));
  const chart = plotlyChart('Curves of the runs');
  const answers = h('div');
  const sides = h(
    'div',
    { class: 'llf-Compare-sides' },
    table.box,
    h('div', { class: 'llf-Compare-curves' }, help, chart.box)
  );
  el.classList.add('llf-Part');
  el.append(
    h(
      'div',
      {
        class: 'llf-row llf-Compare-controls',
        role: 'group',
        'aria-label': 'Metric'
      },
      labelled(add, 'Add a run'),
      labelled(curve, 'Curve'),
      labelled(xAxis, 'Over'),
      labelled(smoothing, 'Smoothing'),
      h('label', {}, log, 'log scale'),
      h('label', {}, everyStep, 'every step'),
      save
    ),
    status,
    sides,
    answers
  );

  function drawCurves() {
    /** @type {Curves[]} */
    const groups = model.get('curves');
    drawIfChanged(curve, groups, () =>
      groups.map(({ title, lines }) =>
        h(
          'optgroup',
          { label: title },
          ...lines.map(([value, label]) =>
            h(
              'option',
              { value },
              lines.length === 1 ? title : `${title}: ${label}`
            )
          )
        )
      )
    );
    curve.value = model.get('curve');
    const group = groups.find(({ lines }) =>
      lines.some(([name]) => name === curve.value)
    );
    setText(
      help,
      [group?.help, model.get('view').note].filter(Boolean).join(' ')
    );
    log.disabled = !group?.log;
  }

  function drawControls() {
    drawCurves();
    xAxis.value = model.get('x_axis');
    smoothing.value = String(model.get('smoothing') ?? AUTOMATIC);
    log.checked = model.get('log_scale');
    everyStep.checked = model.get('show_raw');
  }

  const drawFigure = () => {
    if (model.get('figure').data) {
      chart.show(model.get('figure'));
    }
  };
  const drawError = () => setText(status, model.get('error'));

  function draw() {
    const {
      runs,
      sections,
      answers: given,
      available_runs: available
    } = model.get('view');
    if (!runs) {
      return;
    }
    drawIfChanged(add, available, () => [
      h(
        'option',
        { value: '' },
        available.length ? 'choose…' : 'no other runs'
      ),
      ...available.map((/** @type {any} */ one) =>
        h('option', { value: one.id, title: one.title }, one.name)
      )
    ]);
    sides.classList.toggle('is-stacked', runs.length > BESIDE);
    table.draw(runs, sections);
    /** @type {string[]} */
    const labels = runs.map((/** @type {ComparedRun} */ { label }) => label);
    drawIfChanged(answers, [labels, given], () =>
      given.length ? answerTable(labels, given) : []
    );
  }

  /** Downloads the HTML page that the kernel has made. */
  function saveHtml(/** @type {{html?: string}} */ message) {
    if (typeof message.html !== 'string') {
      return;
    }
    const address = URL.createObjectURL(
      new Blob([message.html], { type: 'text/html' })
    );
    h('a', { href: address, download: 'llf-compare.html' }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
    setText(status, 'Saved as llf-compare.html.');
  }

  /** @type {[string, () => void][]} */
  const listeners = [
    ['view', draw],
    ['view', drawCurves],
    ['figure', drawFigure],
    ['error', drawError],
    ...['curves', 'curve', 'x_axis', 'smoothing', 'log_scale', 'show_raw'].map(
      name => /** @type {[string, () => void]} */ ([name, drawControls])
    )
  ];
  for (const [name, act] of listeners) {
    model.on(`change:${name}`, act);
  }
  model.on('msg:custom', saveHtml);
  for (const act of [draw, drawControls, drawFigure, drawError]) {
    act();
  }
  const endWait = onKernelLost(model, () => {
    setText(
      status,
      `${KERNEL_LOST}. Run the cell again to change the comparison.`
    );
    disableControls(el);
  });
  return () => {
    endWait();
    chart.close();
    model.off('msg:custom', saveHtml);
    for (const [name, act] of listeners) {
      model.off(`change:${name}`, act);
    }
  };
}

export default { initialize, render };
