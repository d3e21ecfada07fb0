// The form: one bundle for all its panes; `_pane` of the widget says which of them it is.

import '../shared/llf.css';
import './forms.css';
import { initialize } from '../shared/initialize.js';
import { columnsPane } from './columns.js';
import { presetsPane } from './presets.js';
import { previewPane } from './preview.js';
import { sectionPane } from './section.js';
import { startPane } from './start.js';
import { sweepPane } from './sweep.js';
import { sweepRuns } from './sweep_runs.js';
import { textPane } from './text.js';

/** @import { Context } from '../shared/model' */

/** @type {Record<string, (context: Context) => () => void>} */
const PANES = {
  columns: columnsPane,
  presets: presetsPane,
  preview: previewPane,
  section: sectionPane,
  start: startPane,
  sweep: sweepPane,
  sweep_runs: sweepRuns,
  text: textPane
};

/** @param {Context} context */
function render(context) {
  return PANES[context.model.get('_pane')](context);
}

export default { initialize, render };
