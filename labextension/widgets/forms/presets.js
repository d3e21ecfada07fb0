import { createButton } from '../shared/buttons.js';
import { drawIfChanged, h, keepFocus, setText } from '../shared/dom.js';
import { keptSettings } from './kept_settings.js';

/** @import { Context } from '../shared/model' */

/**
 * Draws the presets, earlier runs and kept settings that a form can start from, the number of changes, and the switch
 * for the help.
 * @param {Context} context
 */
export function presetSelector({ model, el }) {
  const row = h('div', {
    class: 'llf-Studio-presets',
    role: 'group',
    'aria-label': 'Start from'
  });
  const explain = h('input', { type: 'checkbox' });
  explain.addEventListener('change', () => {
    model.set('_show_help', explain.checked);
    model.save_changes();
  });
  const explainLabel = h(
    'label',
    { class: 'llf-push llf-secondary llf-nowrap' },
    explain,
    'Explain each field'
  );
  const buttons = new Map(
    /** @type {[string, string, string][]} */ (model.get('_presets')).map(
      ([name, label, help]) => {
        const node = createButton(label, () =>
          model.send({ type: 'preset', name })
        );
        node.title = help;
        return [name, node];
      }
    )
  );
  const runs = h('select', {
    'aria-label': 'Earlier run',
    class: 'llf-Studio-runs'
  });
  runs.addEventListener(
    'change',
    () => runs.value && model.send({ type: 'run', id: runs.value })
  );
  const earlier = createButton('Earlier run…', () =>
    model.send({ type: 'runs' })
  );
  const changes = h('span', {
    class: 'llf-secondary llf-Studio-changes',
    role: 'status'
  });

  const undo = createButton(
    'Undo changes',
    () => model.send({ type: 'reset' }),
    'llf-link'
  );

  const kept = keptSettings(
    model,
    () => buttons.get(model.get('_current')) ?? explain
  );
  // the heading of the form, one level above the headings of its sections
  el.replaceChildren(h('h2', { class: 'llf-sr' }, 'New run'), row, kept.node);

  const draw = () => {
    for (const [name, node] of buttons) {
      node.setAttribute('aria-pressed', String(name === model.get('_current')));
    }
    const list = model.get('_runs');
    earlier.hidden = list !== null;
    runs.hidden = list === null;
    if (list !== null) {
      const first = list.length ? 'Choose a run…' : 'no run yet';
      drawIfChanged(runs, [first, list], () =>
        [['', first], ...list].map(([value, label]) =>
          h('option', { value }, label)
        )
      );
    }
    const count = model.get('_changes');
    const name = model.get('_label');
    const current = model.get('_current');
    // a cell's config or an earlier run has no preset to return to
    const [before, unit, after] = current
      ? [`${name} with `, 'change', ' (bold labels) ']
      : ['', 'difference', ` from ${name} (bold labels)`];
    setText(undo, count === 1 ? 'Undo change' : 'Undo changes');
    drawIfChanged(changes, [current, count, name], () =>
      count
        ? [before, h('b', {}, `${count} ${unit}${count > 1 ? 's' : ''}`), after]
        : []
    );
    keepFocus(
      row,
      () => {
        undo.hidden = !count || !current;
      },
      () => buttons.get(current) ?? explain
    );
    explain.checked = model.get('_show_help');
    kept.draw();
  };
  row.append(
    h('span', { class: 'llf-secondary' }, 'Start from'),
    ...buttons.values(),
    earlier,
    runs,
    changes,
    undo,
    explainLabel
  );
  model.on('change', draw);
  draw();
  return () => model.off('change', draw);
}
