import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { ISessionContext } from '@jupyterlab/apputils';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';

/** How the application of Notebook 7 calls itself. */
const NOTEBOOK_7 = 'Jupyter Notebook';

/** What every cell of ours begins with. */
export const IMPORT = 'import llf_widgets as llf';

/** An output by MIME type, as `llf.Monitor` leaves it. */
export type Bundle = Readonly<Record<string, unknown>>;

/** The model of a code cell, as far as it is needed here. */
interface ICodeModel {
  readonly outputs: { fromJSON(outputs: readonly unknown[]): void };
}

/**
 * Runs code in a cell where a reader sees it: below the current cell of the notebook that is open, else in a new one.
 * A process (resuming, comparing) is a kernel's; the server starts none.
 *
 * @param shown - what the cell shows instead of being run: what the server tells of a run needs no kernel
 * @returns false where a new notebook with the code opened in another tab of the browser, as Notebook 7 does
 * @throws where no kernel starts
 */
export async function runInCell(
  app: JupyterFrontEnd,
  tracker: INotebookTracker | null,
  code: string,
  shown?: Bundle
): Promise<boolean> {
  const open = tracker?.currentWidget;
  const panel = open?.isVisible ? open : await create(app, code);
  if (!panel) {
    return false;
  }
  await run(app, panel, code, shown);
  return true;
}

/**
 * Runs code in the first cell of a new notebook.
 *
 * @param cwd - the folder that it is made in; unless given, the one that JupyterLab shows
 * @returns the notebook; undefined where it opened, with the code, in another tab of the browser, as Notebook 7 does
 * @throws where no kernel starts
 */
export async function runInNewNotebook(
  app: JupyterFrontEnd,
  code: string,
  cwd?: string
): Promise<NotebookPanel | undefined> {
  const panel = await create(app, code, cwd);
  if (panel) {
    await run(app, panel, code);
  }
  return panel;
}

async function create(
  app: JupyterFrontEnd,
  code: string,
  cwd?: string
): Promise<NotebookPanel | undefined> {
  const { kernelspecs } = app.serviceManager;
  await kernelspecs.ready;
  const kernelName = kernelspecs.specs?.default;
  if (app.name === NOTEBOOK_7) {
    // What is made there opens in another tab, where nothing can be done: it is written before.
    const path = await write(app, code, cwd);
    await app.commands.execute('docmanager:open', { path });
    return undefined;
  }
  return (await app.commands.execute('notebook:create-new', {
    kernelName,
    activate: true,
    cwd
  })) as NotebookPanel;
}

/** Writes a notebook of one cell; returns its path. */
async function write(
  app: JupyterFrontEnd,
  code: string,
  cwd?: string
): Promise<string> {
  const { contents, kernelspecs } = app.serviceManager;
  const { path } = await contents.newUntitled({ type: 'notebook', path: cwd });
  const name = kernelspecs.specs?.default ?? '';
  const spec = kernelspecs.specs?.kernelspecs[name];
  await contents.save(path, {
    type: 'notebook',
    format: 'json',
    content: {
      cells: [
        {
          cell_type: 'code',
          execution_count: null,
          metadata: {},
          outputs: [],
          source: `${IMPORT}\n${code}`
        }
      ],
      metadata: {
        kernelspec: {
          name,
          display_name: spec?.display_name ?? name,
          language: spec?.language ?? 'python'
        }
      },
      nbformat: 4,
      nbformat_minor: 4 // cells have no ids; Jupyter adds them
    }
  });
  return path;
}

async function run(
  app: JupyterFrontEnd,
  panel: NotebookPanel,
  code: string,
  shown?: Bundle
): Promise<void> {
  const { NotebookActions } = await import('@jupyterlab/notebook');
  await panel.context.ready;
  const { content } = panel;
  const cell = content.activeCell;
  const empty =
    cell?.model.type === 'code' && !cell.model.sharedModel.getSource().trim();
  if (!empty) {
    NotebookActions.insertBelow(content);
  }
  content.activeCell?.model.sharedModel.setSource(`${IMPORT}\n${code}`);
  app.shell.activateById(panel.id);
  // What the cell shows grows below it, which would be beyond the window's end.
  void content
    .scrollToItem(content.activeCellIndex, 'start')
    .catch(() => undefined); // refused where it has left
  if (shown) {
    const model = content.activeCell?.model as unknown as ICodeModel;
    model.outputs.fromJSON([
      { output_type: 'display_data', data: shown, metadata: {} }
    ]);
    return;
  }
  await panel.sessionContext.ready;
  await wake(app, panel.sessionContext);
  void NotebookActions.run(content, panel.sessionContext);
}

/**
 * Starts a kernel where a notebook has none, or where its own has died.
 *
 * @throws where none starts
 */
async function wake(
  app: JupyterFrontEnd,
  context: ISessionContext
): Promise<void> {
  const kernel = context.session?.kernel;
  if (kernel && !['dead', 'terminating'].includes(kernel.status)) {
    return;
  }
  const { kernelspecs } = app.serviceManager;
  await kernelspecs.ready;
  const name = context.kernelPreference.name ?? kernelspecs.specs?.default;
  await context.changeKernel({ name });
}
