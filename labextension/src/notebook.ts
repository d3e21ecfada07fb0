import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { ISessionContext } from '@jupyterlab/apputils';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';

/** What every cell of ours begins with. */
export const IMPORT = 'import llf_widgets as llf';

/**
 * Runs code in a cell where a reader sees it: below the current cell of the notebook that is open, else in a new one.
 * A process (resuming, comparing) is a kernel's; the server starts none.
 *
 * @returns false where the new notebook opened in another tab of the browser, as Notebook 7 does
 */
export async function runInCell(
  app: JupyterFrontEnd,
  tracker: INotebookTracker | null,
  code: string
): Promise<boolean> {
  const open = tracker?.currentWidget;
  if (!open?.isVisible) {
    return (await runInNewNotebook(app, code)) !== undefined;
  }
  await run(app, open, code);
  return true;
}

/**
 * Runs code in the first cell of a new notebook.
 *
 * @param cwd - the folder that it is made in; unless given, the one that JupyterLab shows
 * @returns the notebook; undefined where it opened in another tab of the browser, as Notebook 7 does
 */
export async function runInNewNotebook(
  app: JupyterFrontEnd,
  code: string,
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
  if (!made?.isAttached || made.isDisposed) {
    return undefined;
  }
  await run(app, made, code);
  return made;
}

async function run(
  app: JupyterFrontEnd,
  panel: NotebookPanel,
  code: string
): Promise<void> {
  const { NotebookActions } = await import('@jupyterlab/notebook');
  await panel.context.ready;
  await panel.sessionContext.ready;
  const { content } = panel;
  const cell = content.activeCell;
  const empty =
    cell?.model.type === 'code' && !cell.model.sharedModel.getSource().trim();
  if (!empty) {
    NotebookActions.insertBelow(content);
  }
  content.activeCell?.model.sharedModel.setSource(`${IMPORT}\n${code}`);
  app.shell.activateById(panel.id);
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
