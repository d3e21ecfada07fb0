// Entry point of the form: one bundle for all its components. The trait `_component` says which one a widget draws.

import '../shared/llf.css';
import './forms.css';
import { disableControls } from '../shared/buttons.js';
import { initialize } from '../shared/initialize.js';
import { onKernelLost } from '../shared/kernel.js';
import { columnMapping } from './column_mapping.js';
import { fitStrip } from './fit_strip.js';
import { presetSelector } from './presets.js';
import { dataPreview } from './preview.js';
import { formSection } from './section.js';
import { startControls } from './start_controls.js';
import { sweepForm } from './sweep_form.js';
import { sweepRunTable } from './sweep_runs.js';
import { configEditor } from './config_editor.js';
import { trainedParameters } from './trained_parameters.js';

/** @import { Context } from '../shared/model' */

/** @type {Record<string, (context: Context) => () => void>} */
const COMPONENTS = {
  column_mapping: columnMapping,
  fit_strip: fitStrip,
  presets: presetSelector,
  preview: dataPreview,
  section: formSection,
  start_controls: startControls,
  sweep_form: sweepForm,
  sweep_runs: sweepRunTable,
  trained_parameters: trainedParameters,
  config_editor: configEditor
};

/**
 * Draws the component of a widget. When its kernel is gone, nothing is left to click but what works in the page alone.
 * @param {Context} context
 */
function render(context) {
  const { model, el } = context;
  const close = COMPONENTS[model.get('_component')](context);
  const endWait = onKernelLost(model, () => disableControls(el));
  return () => {
    endWait();
    close();
  };
}

export default { initialize, render };
