import {
  ILayoutRestorer,
  type JupyterFrontEnd,
  type JupyterFrontEndPlugin
} from '@jupyterlab/application';
import { ICommandPalette, Notification } from '@jupyterlab/apputils';
import { ILauncher } from '@jupyterlab/launcher';
import { INotebookTracker } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { ITranslator, nullTranslator } from '@jupyterlab/translation';
import { Menu } from '@lumino/widgets';

// The sidebar's tab and its menu are needed at once.
/* eslint-disable jupyter/prefer-lazy-imports */
import { addCommands, MENU, NO_ARGUMENTS } from './actions';
import { Api } from './api';
import { BinActions } from './bin_actions';
import { called } from './format';
import { llfIcon, llfPicture } from './icon';
import { RunsModel } from './model';
import { RunsPanel } from './panel';
import { VERSION } from './version';
import { views } from './views';
/* eslint-enable jupyter/prefer-lazy-imports */

const ID = 'llf-labextension:runs';
const NOTICE_SECONDS = 8;

/** Gives the focus back to where it was before a menu opened, which a menu does not do. */
class FocusKeeper {
  constructor(menu: Menu) {
    menu.aboutToClose.connect(() => {
      const from = this._from;
      this._from = null;
      if (from?.isConnected) {
        from.focus();
      }
    });
  }

  remember(): void {
    const { activeElement: active } = document;
    this._from = active instanceof HTMLElement ? active : null;
  }

  private _from: HTMLElement | null = null;
}

/** Adds the LLF panel to the left sidebar of JupyterLab and Notebook. */
const plugin: JupyterFrontEndPlugin<void> = {
  id: ID,
  description: 'Lists the runs of LLF in the left sidebar.',
  autoStart: true,
  optional: [
    ILayoutRestorer,
    ITranslator,
    ICommandPalette,
    INotebookTracker,
    ISettingRegistry,
    ILauncher
  ],
  activate: (
    app: JupyterFrontEnd,
    restorer: ILayoutRestorer | null,
    translator: ITranslator | null,
    palette: ICommandPalette | null,
    tracker: INotebookTracker | null,
    settings: ISettingRegistry | null,
    launcher: ILauncher | null
  ) => {
    const trans = (translator ?? nullTranslator).load('llf');
    const model: RunsModel = new RunsModel({
      api: new Api(app.serviceManager.serverSettings),
      pageVersion: VERSION,
      isVisible: () => panel.isVisible
    });
    const bin = new BinActions(model, trans);
    addCommands(app, model, tracker, bin, trans);
    const menu = new Menu({ commands: app.commands });
    const keeping = new FocusKeeper(menu);
    const panel: RunsPanel = new RunsPanel(model, trans, {
      execute: (command, args) => void app.commands.execute(command, args),
      openMenu: (x, y) => {
        keeping.remember();
        menu.open(x, y);
      },
      bin
    });
    MENU.forEach((command, rank) => {
      const item = command ? { command } : ({ type: 'separator' } as const);
      menu.addItem(item);
      app.contextMenu?.addItem({
        ...item,
        selector: '.llf-RunsPanel [data-run]',
        rank
      });
    });
    if (app.contextMenu) {
      const context = new FocusKeeper(app.contextMenu.menu);
      panel.node.addEventListener(
        'contextmenu',
        () => context.remember(),
        true
      );
    }
    panel.id = 'llf-runs';
    panel.title.icon = llfIcon;
    panel.title.caption = trans.__('LLF: runs');
    app.shell.add(panel, 'left', { rank: 600 });
    app.commands.addCommand('llf:show-runs', {
      describedBy: NO_ARGUMENTS,
      label: trans.__('Show LLF runs'),
      execute: () => app.shell.activateById(panel.id)
    });
    for (const command of ['llf:new-run', 'llf:show-runs', 'llf:undo-delete']) {
      palette?.addItem({ command, category: trans.__('LLF') });
    }
    launcher?.add({
      command: 'llf:new-run',
      category: trans.__('Notebook'),
      rank: 100, // behind the kernels
      kernelIconUrl: llfPicture // the section shows no icons of commands
    });
    restorer?.add(panel, panel.id);

    let notify = true;
    void settings?.load(ID).then(found => {
      const read = (): void => {
        notify = found.get('notify').composite as boolean;
      };
      read();
      found.changed.connect(read);
    });
    model.ended.connect((_, { run, well }) => {
      if (!notify) {
        return;
      }
      const actions = [
        {
          label: trans.__('Show'),
          callback: () => {
            app.shell.activateById(panel.id);
            model.select(run.id);
            void model.open(run.id);
          }
        }
      ];
      const options = { autoClose: NOTICE_SECONDS * 1000, actions };
      if (well) {
        Notification.success(
          trans.__('%1 has finished.', called(run)),
          options
        );
      } else {
        const said = run.reason ?? run.state;
        Notification.warning(`${called(run)}: ${said}`, options);
      }
    });
    void app.restored.then(() => model.start());
  }
};

export default [plugin, views];
