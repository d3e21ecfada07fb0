import {
  ILayoutRestorer,
  type JupyterFrontEnd,
  type JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';

import { Api } from './api';
import { llfIcon } from './icon';
import { RunsModel } from './model';
// eslint-disable-next-line jupyter/prefer-lazy-imports -- the sidebar's tab is needed at once
import { RunsPanel } from './panel';
import { VERSION } from './version';

/** Adds the LLF panel to the left sidebar of JupyterLab and Notebook. */
const plugin: JupyterFrontEndPlugin<void> = {
  id: 'llf-labextension:runs',
  description: 'Lists the runs of LLF in the left sidebar.',
  autoStart: true,
  optional: [ILayoutRestorer, ITranslator],
  activate: (
    app: JupyterFrontEnd,
    restorer: ILayoutRestorer | null,
    translator: ITranslator | null
  ) => {
    const trans = (translator ?? nullTranslator).load('llf');
    const model: RunsModel = new RunsModel({
      api: new Api(app.serviceManager.serverSettings),
      pageVersion: VERSION,
      isVisible: () => panel.isVisible
    });
    const panel: RunsPanel = new RunsPanel(model, trans);
    panel.id = 'llf-runs';
    panel.title.icon = llfIcon;
    panel.title.caption = trans.__('LLF: runs');
    app.shell.add(panel, 'left', { rank: 600 });
    restorer?.add(panel, panel.id);
    void app.restored.then(() => model.start());
  }
};

export default plugin;
