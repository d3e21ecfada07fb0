import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { ISessionContext } from '@jupyterlab/apputils';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';

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
 * @returns false where the new notebook opened in another tab of the browser, as Notebook 7 does
 * @throws where no kernel starts
 */
export async function runInCell(
  app: JupyterFrontEnd,
  tracker: INotebookTracker | null,
  code: string,
  shown?: Bundle
): Promise<boolean> {
  const open = tracker?.currentWidget;
  const panel = open?.isVisible ? open : await create(app);
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
 * @returns the notebook; undefined where it opened in another tab of the browser, as Notebook 7 does
 * @throws where no kernel starts
 */
export async function runInNewNotebook(
  app: JupyterFrontEnd,
  code: string,
  cwd?: string
): Promise<NotebookPanel | undefined> {
  const panel = await create(app, cwd);
  if (panel) {
    await run(app, panel, code);
  }
  return panel;
}

async function create(
  app: JupyterFrontEnd,
  cwd?: string
): Promise<NotebookPanel | undefined> {
  const { kernelspecs } = app.serviceManager;
  await kernelspecs.ready;
  const made = (await app.commands.execute('notebook:create-new', {
    kernelName: kernelspecs.specs?.default,
    activate: true,
    cwd
  })) as NotebookPanel | undefined;
  // Notebook 7 opens another tab of the browser, and hands out a panel that it throws away.
  return made?.isAttached && !made.isDisposed ? made : undefined;
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
