import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { ISessionContext } from '@jupyterlab/apputils';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';

import { parseViewData, VIEW_MIME_TYPE } from './view_data';

/** `app.name` of Notebook 7, which opens each notebook in a browser tab of its own. */
const NOTEBOOK_7 = 'Jupyter Notebook';

/** First line of every cell that the panel writes. */
export const IMPORT_LINE = 'import llf_widgets as llf';

/** Data of a cell output by MIME type. */
export type MimeBundle = Readonly<Record<string, unknown>>;

/** A cell that was started; `succeeded` is known once it ends. */
export interface IStartedCell {
  readonly succeeded: Promise<boolean>;
}

/** The part of a code cell's model that this file uses. */
interface ICodeCellModel {
  readonly executionState: string;
  readonly outputs: {
    fromJSON(outputs: readonly unknown[]): void;
    toJSON(): readonly { data?: MimeBundle }[];
  };
}

/**
 * Scrolls to the monitor of a run in the open notebook, also to one whose cell is about to draw it.
 *
 * @returns whether there is one
 */
export async function showMonitor(
  app: JupyterFrontEnd,
  tracker: INotebookTracker | null,
  run: string
): Promise<boolean> {
  const panel = tracker?.currentWidget;
  const cells = panel?.content.widgets ?? [];
  const selector = `[data-llf-run="${run}"]`;
  const index = cells.findIndex(({ node, model }) => {
    const { outputs, executionState } = model as unknown as ICodeCellModel;
    const source = model.sharedModel.getSource();
    return (
      node.querySelector(selector) !== null ||
      outputs
        ?.toJSON()
        .some(
          ({ data }) => parseViewData(data?.[VIEW_MIME_TYPE]).run === run
        ) ||
      (executionState === 'running' &&
        source.includes('llf.Monitor(') &&
        source.includes(`"${run}"`))
    );
  });
  if (!panel || index < 0) {
    return false;
  }
  const { content } = panel;
  app.shell.activateById(panel.id);
  content.activeCellIndex = index;
  content.deselectAll();
  await content.scrollToItem(index, 'start').catch(() => undefined); // rejected if the cell was removed
  cells[index].node.querySelector(selector)?.scrollIntoView(); // a form is above its monitor
  return true;
}

/**
 * Runs code in a visible cell: below the current cell of the open notebook, or in a new notebook.
 * Actions that need a process, such as resuming or comparing, run in a kernel because the server starts no processes.
 *
 * @param output - shown as the output of the cell, which is then not executed and needs no kernel
 * @returns the cell; false if it is in a new notebook in another browser tab (Notebook 7), where it has not run
 * @throws where no kernel starts
 */
export async function runInCell(
  app: JupyterFrontEnd,
  tracker: INotebookTracker | null,
  code: string,
  output?: MimeBundle
): Promise<IStartedCell | false> {
  const open = tracker?.currentWidget;
  const panel = open?.isVisible ? open : await createNotebook(app, code);
  if (!panel) {
    return false;
  }
  return insertAndRun(app, panel, code, output);
}

/**
 * Runs code in the first cell of a new notebook.
 *
 * @param cwd - folder of the notebook; by default the folder that the file browser shows
 * @returns the notebook; undefined if it opened in another browser tab (Notebook 7), where the code has not run
 * @throws where no kernel starts
 */
export async function runInNewNotebook(
  app: JupyterFrontEnd,
  code: string,
  cwd?: string
): Promise<NotebookPanel | undefined> {
  const panel = await createNotebook(app, code, cwd);
  if (panel) {
    await insertAndRun(app, panel, code);
  }
  return panel;
}

async function createNotebook(
  app: JupyterFrontEnd,
  code: string,
  cwd?: string
): Promise<NotebookPanel | undefined> {
  const { kernelspecs } = app.serviceManager;
  await kernelspecs.ready;
  const kernelName = kernelspecs.specs?.default;
  if (app.name === NOTEBOOK_7) {
    // It opens in another tab, out of reach of this page, so the notebook is saved with its cell first.
    const path = await writeNotebook(app, code, cwd);
    await app.commands.execute('docmanager:open', { path });
    return undefined;
  }
  return (await app.commands.execute('notebook:create-new', {
    kernelName,
    activate: true,
    cwd
  })) as NotebookPanel;
}

/** Saves a notebook with one cell and returns its path. */
async function writeNotebook(
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
          source: `${IMPORT_LINE}\n${code}`
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
      nbformat_minor: 4 // this format has no cell ids; Jupyter adds them
    }
  });
  return path;
}

async function insertAndRun(
  app: JupyterFrontEnd,
  panel: NotebookPanel,
  code: string,
  output?: MimeBundle
): Promise<IStartedCell> {
  const { NotebookActions } = await import('@jupyterlab/notebook');
  await panel.context.ready;
  const { content } = panel;
  const cell = content.activeCell;
  const empty =
    cell?.model.type === 'code' && !cell.model.sharedModel.getSource().trim();
  if (!empty) {
    NotebookActions.insertBelow(content);
  }
  content.activeCell?.model.sharedModel.setSource(`${IMPORT_LINE}\n${code}`);
  app.shell.activateById(panel.id);
  // The output grows below the cell and would be outside the window.
  void content
    .scrollToItem(content.activeCellIndex, 'start')
    .catch(() => undefined); // rejected if the cell was removed
  if (output) {
    const model = content.activeCell?.model as unknown as ICodeCellModel;
    model.outputs.fromJSON([
      { output_type: 'display_data', data: output, metadata: {} }
    ]);
    return { succeeded: Promise.resolve(true) };
  }
  await panel.sessionContext.ready;
  await ensureKernel(app, panel.sessionContext);
  const succeeded = NotebookActions.run(content, panel.sessionContext);
  return { succeeded: succeeded.catch(() => false) };
}

/**
 * Starts a kernel if the notebook has none or its kernel has died.
 *
 * @throws if no kernel starts
 */
async function ensureKernel(
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
