import type { JupyterFrontEnd } from '@jupyterlab/application';
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
  code: string,
  fresh = false
): Promise<boolean> {
  const { NotebookActions } = await import('@jupyterlab/notebook');
  const open = tracker?.currentWidget;
  const panel = !fresh && open?.isVisible ? open : await create(app);
  if (!panel) {
    return false; // another tab of the browser has it: Notebook 7
  }
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
  await NotebookActions.run(content, panel.sessionContext);
  return true;
}

async function create(app: JupyterFrontEnd): Promise<NotebookPanel | null> {
  const { kernelspecs } = app.serviceManager;
  await kernelspecs.ready;
  const made = (await app.commands.execute('notebook:create-new', {
    kernelName: kernelspecs.specs?.default,
    activate: true
  })) as NotebookPanel | undefined;
  // Notebook 7 opens another tab of the browser, and hands out a panel that it throws away.
  return made?.isAttached && !made.isDisposed ? made : null;
}
