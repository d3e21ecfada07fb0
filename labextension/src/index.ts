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

// The tab of the sidebar and its menu are needed as soon as JupyterLab starts.
/* eslint-disable jupyter/prefer-lazy-imports */
import { addCommands, RUN_MENU, NO_ARGS } from './commands';
import { Api } from './api';
import { BinActions } from './bin_actions';
import { displayName } from './format';
import { llfIcon, llfIconUrl } from './icon';
import { RunsModel } from './model';
import { RunsPanel } from './panel';
import { VERSION } from './version';
import { viewsPlugin } from './notebook_views';
/* eslint-enable jupyter/prefer-lazy-imports */

const ID = 'llf-labextension:runs';
const NOTIFICATION_SECONDS = 8;

/** Restores the focus when a menu closes, which a Lumino menu does not do. */
class FocusRestorer {
  constructor(menu: Menu) {
    menu.aboutToClose.connect(() => {
      const from = this._previous;
      this._previous = null;
      if (from?.isConnected) {
        from.focus();
      }
    });
  }

  /** Remembers the focused element; call it just before the menu opens. */
  saveFocus(): void {
    const { activeElement: active } = document;
    this._previous = active instanceof HTMLElement ? active : null;
  }

  private _previous: HTMLElement | null = null;
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
      isVisible: () => panel.isVisible,
      storage: pageStorage()
    });
    const bin = new BinActions(model, trans);
    addCommands(app, model, tracker, bin, trans);
    const menu = new Menu({ commands: app.commands });
    const menuFocus = new FocusRestorer(menu);
    const panel: RunsPanel = new RunsPanel(model, trans, {
      execute: (command, args) => void app.commands.execute(command, args),
      openMenu: (x, y) => {
        menuFocus.saveFocus();
        menu.open(x, y);
      },
      bin
    });
    RUN_MENU.forEach((command, rank) => {
      const item = command ? { command } : ({ type: 'separator' } as const);
      menu.addItem(item);
      app.contextMenu?.addItem({
        ...item,
        selector: '.llf-RunsPanel [data-run]',
        rank
      });
    });
    if (app.contextMenu) {
      const contextFocus = new FocusRestorer(app.contextMenu.menu);
      panel.node.addEventListener(
        'contextmenu',
        () => contextFocus.saveFocus(),
        true
      );
    }
    panel.id = 'llf-runs';
    panel.title.icon = llfIcon;
    panel.title.caption = trans.__('LLF: runs');
    app.shell.add(panel, 'left', { rank: 600 });
    app.commands.addCommand('llf:show-runs', {
      describedBy: NO_ARGS,
      label: trans.__('Show LLF runs'),
      execute: () => app.shell.activateById(panel.id)
    });
    for (const command of ['llf:new-run', 'llf:show-runs', 'llf:undo-delete']) {
      palette?.addItem({ command, category: trans.__('LLF') });
    }
    launcher?.add({
      command: 'llf:new-run',
      category: trans.__('Notebook'),
      rank: 100, // after the kernels
      kernelIconUrl: llfIconUrl // this section of the launcher ignores the icons of commands
    });
    restorer?.add(panel, panel.id);

    let notify = true;
    void settings?.load(ID).then(loaded => {
      const update = (): void => {
        notify = loaded.get('notify').composite as boolean;
      };
      update();
      loaded.changed.connect(update);
    });
    model.runEnded.connect((_, { run, succeeded }) => {
      if (!notify) {
        return;
      }
      const actions = [
        {
          label: trans.__('Show'),
          callback: () => {
            app.shell.activateById(panel.id);
            model.select(run.id);
            void model.openDetails(run.id);
          }
        }
      ];
      const options = { autoClose: NOTIFICATION_SECONDS * 1000, actions };
      if (succeeded) {
        Notification.success(
          trans.__('%1 has finished.', displayName(run)),
          options
        );
      } else {
        const message = run.reason ?? run.state;
        Notification.warning(`${displayName(run)}: ${message}`, options);
      }
    });
    void app.restored.then(() => model.start());
  }
};

/** The page's storage; null where the browser denies it. */
function pageStorage(): Storage | null {
  try {
    return window.localStorage;
  } catch {
    return null;
  }
}

export default [plugin, viewsPlugin];
