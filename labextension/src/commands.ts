import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Clipboard, Dialog, showDialog } from '@jupyterlab/apputils';
import type { INotebookTracker } from '@jupyterlab/notebook';
import type { TranslationBundle } from '@jupyterlab/translation';

import { ApiError, type IRun, type RunState } from './api';
import type { BinActions } from './bin_actions';
import { showBranchDialog } from './branch_dialog';
import { MetaEditor } from './meta_editor';
import { showExportDialog } from './export_dialog';
import { chatCode, displayName, evaluateCode, viewCode } from './format';
import { llfIcon } from './icon';
import {
  LIVE_STATES,
  RESUMABLE_STATES,
  mayHaveModel,
  type RunsModel
} from './model';
import {
  type IStartedCell,
  type MimeBundle,
  IMPORT_LINE,
  runInCell,
  runInNewNotebook,
  showMonitor
} from './notebook';
import { cellNotRunSentence } from './error_sentences';
import { confirmForeignCode } from './trust_dialog';

/** The commands of the context menu of a run in their order; null is a separator. */
export const RUN_MENU: readonly (string | null)[] = [
  'llf:open-monitor',
  'llf:compare',
  'llf:chat',
  'llf:evaluate-model',
  'llf:export',
  'llf:fetch',
  null,
  'llf:resume',
  'llf:branch',
  'llf:replay',
  'llf:evaluate',
  'llf:stop',
  'llf:checkpoint',
  'llf:kill',
  null,
  'llf:copy-ids',
  'llf:copy-paths',
  'llf:copy-code',
  null,
  'llf:rename',
  'llf:tags',
  'llf:note',
  null,
  'llf:delete'
];

/** Argument schema of commands that act on the selected runs and take no arguments. */
export const NO_ARGS = {
  args: { type: 'object', properties: {} }
} as const;

/** Argument schema of *Chat*: the checkpoint of the run. */
const CHAT_ARGS = {
  args: {
    type: 'object',
    properties: {
      step: {
        type: 'integer',
        description:
          'The checkpoint of the run to chat with. Default: its newest weights.'
      }
    }
  }
} as const;

/** Argument schema of *Chat* beside a result: the run, which need not be in the list of runs. */
const CHAT_RESULT_ARGS = {
  args: {
    type: 'object',
    properties: {
      run: { type: 'string', description: 'The id of a finished run.' }
    },
    required: ['run']
  }
} as const;

/** Argument schema of *Branch*: the checkpoint that the dialog preselects. */
const BRANCH_ARGS = {
  args: {
    type: 'object',
    properties: {
      step: {
        type: 'integer',
        description:
          'The checkpoint that the dialog preselects. Default: the last one.'
      }
    }
  }
} as const;

/** Argument schema of *New run*: the folder of the launcher. */
const NEW_RUN_ARGS = {
  args: {
    type: 'object',
    properties: {
      cwd: {
        type: 'string',
        description:
          'The folder of the new notebook. Default: the folder that the file browser shows.'
      }
    }
  }
} as const;

/** Commands that also work for runs of another host. */
const OF_ANY_HOST = new Set([
  'llf:open-monitor',
  'llf:compare',
  'llf:fetch',
  'llf:resume',
  'llf:stop',
  'llf:checkpoint',
  'llf:kill',
  'llf:copy-ids',
  'llf:copy-code'
]);

const KILLABLE: readonly RunState[] = ['starting', 'running', 'stopping'];

interface ICommand {
  label: (runs: readonly IRun[]) => string;
  /** Whether the command applies to these runs. */
  isEnabled: (runs: readonly IRun[]) => boolean;
  execute: (
    runs: readonly IRun[],
    args: { readonly step?: unknown }
  ) => Promise<unknown>;
  /** Why the command is disabled, for commands that a key can start at any time. */
  disabledReason?: (runs: readonly IRun[]) => string;
  describedBy?: typeof NO_ARGS | typeof BRANCH_ARGS;
}

/**
 * Adds the commands for the selected runs to the application, so that the context menu, the palette, the panel's menu
 * and user-defined shortcuts share one implementation.
 */
export function addCommands(
  app: JupyterFrontEnd,
  model: RunsModel,
  tracker: INotebookTracker | null,
  bin: BinActions,
  trans: TranslationBundle
): void {
  const { api } = model;
  const edits = new MetaEditor(model, trans);
  const isSingle = (runs: readonly IRun[]): boolean => runs.length === 1;
  /** Why a run cannot be chatted with, evaluated or exported; empty if that is not the reason. */
  const noModelReason = (runs: readonly IRun[]): string => {
    const without = runs.find(run => !mayHaveModel(run));
    return without
      ? trans.__(
          '“%1” has neither a result nor a checkpoint.',
          displayName(without)
        )
      : '';
  };
  const OPENED_IN_NEW_TAB = trans.__(
    'Run the cell in the notebook that opened in a new tab.'
  );
  /** Waits for a cell; if it could not run, shows why and returns null. */
  const reportFailure = async <T>(execution: Promise<T>): Promise<T | null> => {
    try {
      return await execution;
    } catch (error) {
      model.setStatusMessage(cellNotRunSentence(error, trans));
      return null;
    }
  };
  /** Runs code in a cell; returns the cell if it has started. */
  const runCode = async (
    code: string,
    output?: MimeBundle
  ): Promise<IStartedCell | null> => {
    const cell = await reportFailure(runInCell(app, tracker, code, output));
    if (cell === false) {
      model.setStatusMessage(OPENED_IN_NEW_TAB);
    }
    return cell || null;
  };
  /** Repeats a run in a cell, once the user has allowed the code that came with it. */
  const replay = async (run: IRun): Promise<void> => {
    const trust = await confirmForeignCode(model, run, trans);
    if (trust !== null) {
      await runCode(
        `run = llf.attach("${run.id}").replay(${trust})\nllf.Monitor(run)`
      );
    }
  };
  /** Resumes a run in a cell, which shows a monitor unless the notebook has one of this run. */
  const resume = async (run: IRun): Promise<void> => {
    // a host allows its own code
    const trust = model.host ? '' : await confirmForeignCode(model, run, trans);
    if (trust === null) {
      return;
    }
    const shown = await showMonitor(app, tracker, run.id);
    const code = `run = llf.attach("${model.nameOf(run)}").resume(${trust})`;
    const cell = await runCode(shown ? code : `${code}\nllf.Monitor(run)`);
    if (!cell) {
      return;
    }
    if (!(await cell.succeeded)) {
      model.setStatusMessage(
        trans.__('The cell that resumes the run failed. Its output says why.')
      );
    } else if (shown) {
      await showMonitor(app, tracker, run.id);
    }
  };
  /**
   * Goes to the monitor of a run in the open notebook, or adds one. With a summary of the server as its output, the cell
   * need not run, so no kernel is needed.
   */
  const openMonitor = async (run: IRun): Promise<unknown> => {
    if (await showMonitor(app, tracker, run.id)) {
      return;
    }
    let output: MimeBundle | undefined;
    try {
      // a view of a mirrored run is the kernel's
      output = model.host ? undefined : await api.runSummary(run.id);
    } catch (error) {
      if (!(error instanceof ApiError) || [0, 404].includes(error.status)) {
        return model.showError(error);
      }
      // The server cannot summarize the run: run the cell, so that the kernel draws the monitor.
    }
    return runCode(viewCode([model.nameOf(run)]), output);
  };
  /** Returns a command that sends a request to each run and then shows `message`. */
  const sendRequest =
    (type: string, message: string) => (runs: readonly IRun[]) =>
      model.runForEach(
        runs,
        run => api.sendRequest(run.id, type),
        () => message
      );

  const commands: Record<string, ICommand> = {
    'llf:open-monitor': {
      label: () => trans.__('Open monitor'),
      isEnabled: isSingle,
      execute: ([run]) => openMonitor(run)
    },
    'llf:compare': {
      label: runs =>
        runs.length > 1
          ? trans.__('Compare %1 runs', runs.length)
          : trans.__('Compare runs'),
      isEnabled: runs => runs.length > 1 && runs.length <= 8,
      execute: runs => runCode(viewCode(runs.map(run => model.nameOf(run))))
    },
    'llf:chat': {
      label: () => trans.__('Chat'),
      isEnabled: runs =>
        runs.length > 0 && runs.length <= 4 && runs.every(mayHaveModel),
      disabledReason: noModelReason,
      describedBy: CHAT_ARGS,
      execute: (runs, { step }) =>
        runCode(
          chatCode(
            runs.map(run => run.id),
            step as number | undefined
          )
        )
    },
    'llf:evaluate-model': {
      label: () => trans.__('Evaluate'),
      isEnabled: runs =>
        runs.length > 0 && runs.length <= 4 && runs.every(mayHaveModel),
      disabledReason: noModelReason,
      execute: runs => runCode(evaluateCode(runs.map(run => run.id)))
    },
    'llf:export': {
      label: () => trans.__('Export…'),
      isEnabled: runs => isSingle(runs) && mayHaveModel(runs[0]),
      disabledReason: noModelReason,
      execute: async ([run]) => {
        const code = await showExportDialog(run, model.version?.folder, trans);
        return code !== null && runCode(code);
      }
    },
    'llf:fetch': {
      label: () => trans.__('Fetch result'),
      isEnabled: runs =>
        isSingle(runs) && model.host !== '' && runs[0].state === 'finished',
      execute: ([run]) => runCode(`llf.attach("${model.nameOf(run)}").fetch()`)
    },
    'llf:resume': {
      label: () => trans.__('Resume'),
      isEnabled: runs =>
        isSingle(runs) &&
        RESUMABLE_STATES.includes(runs[0].state) &&
        !model.isResuming(runs[0]),
      execute: ([run]) =>
        model.whileResuming(
          run.id,
          trans.__('Resuming “%1”…', displayName(run)),
          () => resume(run)
        )
    },
    'llf:branch': {
      label: () => trans.__('Branch from a checkpoint…'),
      isEnabled: runs => isSingle(runs) && runs[0].step > 0,
      describedBy: BRANCH_ARGS,
      execute: async ([run], { step }) => {
        const trust = await confirmForeignCode(model, run, trans);
        if (trust === null) {
          return;
        }
        const code = await showBranchDialog(
          model,
          run,
          trans,
          step as number,
          trust
        );
        return code !== null && runCode(code);
      }
    },
    'llf:evaluate': {
      label: () => trans.__('Evaluate loss'),
      isEnabled: runs =>
        isSingle(runs) && ['running', 'finished'].includes(runs[0].state),
      execute: runs =>
        runs[0].state === 'running'
          ? sendRequest('evaluate', trans.__('Evaluation requested.'))(runs)
          : runCode(`llf.losses("${runs[0].id}")`)
    },
    'llf:replay': {
      label: () => trans.__('Run again'),
      isEnabled: isSingle,
      execute: ([run]) => replay(run)
    },
    'llf:stop': {
      label: () => trans.__('Stop with checkpoint'),
      isEnabled: runs => runs.some(run => LIVE_STATES.includes(run.state)),
      execute: runs =>
        sendRequest(
          'stop',
          trans.__('Stopping after the current step.')
        )(runs.filter(run => LIVE_STATES.includes(run.state)))
    },
    'llf:checkpoint': {
      label: () => trans.__('Save checkpoint'),
      isEnabled: runs => isSingle(runs) && runs[0].state === 'running',
      execute: sendRequest('checkpoint', trans.__('Checkpoint requested.'))
    },
    'llf:kill': {
      label: () => trans.__('Kill…'),
      isEnabled: runs => isSingle(runs) && KILLABLE.includes(runs[0].state),
      execute: async ([run]) => {
        const { button } = await showDialog({
          title: trans.__('Kill “%1”?', displayName(run)),
          body: trans.__(
            'The run ends at once. Steps after its last checkpoint are lost.'
          ),
          defaultButton: 0, // Enter cancels: nothing is killed by accident
          buttons: [
            Dialog.cancelButton({ label: trans.__('Keep running') }),
            Dialog.warnButton({ label: trans.__('Kill now') })
          ]
        });
        if (button.accept) {
          await sendRequest('kill', trans.__('Run killed.'))([run]);
        }
      }
    },
    'llf:copy-ids': {
      label: runs => trans._n('Copy run id', 'Copy run ids', runs.length),
      isEnabled: runs => runs.length > 0,
      execute: async runs => {
        Clipboard.copyToSystem(runs.map(run => model.nameOf(run)).join('\n'));
        await model.runAction(async () => trans.__('Copied.'));
      }
    },
    'llf:copy-paths': {
      label: runs => trans._n('Copy path', 'Copy paths', runs.length),
      isEnabled: runs => runs.length > 0 && model.version !== null,
      execute: async runs => {
        const folder = model.version?.folder;
        Clipboard.copyToSystem(
          runs.map(run => `${folder}/${run.id}`).join('\n')
        );
        await model.runAction(async () => trans.__('Copied.'));
      }
    },
    'llf:copy-code': {
      label: () => trans.__('Copy as code'),
      isEnabled: runs => runs.length > 0 && runs.length <= 8,
      execute: async runs => {
        const code = viewCode(runs.map(run => model.nameOf(run)));
        Clipboard.copyToSystem(`${IMPORT_LINE}\n${code}`);
        await model.runAction(async () =>
          trans.__('Copied. Paste it into a cell.')
        );
      }
    },
    'llf:rename': {
      label: () => trans.__('Rename…'),
      isEnabled: isSingle,
      execute: ([run]) => edits.rename(run)
    },
    'llf:tags': {
      label: runs =>
        runs.length > 1
          ? trans.__('Edit tags of %1 runs…', runs.length)
          : trans.__('Edit tags…'),
      isEnabled: runs => runs.length > 0,
      execute: runs => edits.editTags(runs)
    },
    'llf:note': {
      label: () => trans.__('Edit note…'),
      isEnabled: isSingle,
      execute: ([run]) => edits.editNote(run)
    },
    'llf:delete': {
      label: runs =>
        runs.length > 1
          ? trans.__('Move %1 runs to the bin', runs.length)
          : trans.__('Move to the bin'),
      isEnabled: runs =>
        runs.length > 0 && runs.every(run => !LIVE_STATES.includes(run.state)),
      execute: runs => bin.moveToBin(runs),
      disabledReason: runs => {
        const live = runs.find(run => LIVE_STATES.includes(run.state));
        return live
          ? trans.__(
              '“%1” is still running. Stop it before you move it to the bin.',
              displayName(live)
            )
          : '';
      }
    }
  };

  for (const [id, command] of Object.entries(commands)) {
    const isHere = (): boolean => model.host === '' || OF_ANY_HOST.has(id);
    app.commands.addCommand(id, {
      describedBy: command.describedBy ?? NO_ARGS,
      label: () => command.label(model.selectedRuns),
      isEnabled: () => isHere() && command.isEnabled(model.selectedRuns),
      isVisible: () => isHere() && (id !== 'llf:fetch' || model.host !== ''),
      // A command registry executes disabled commands too.
      execute: args => {
        const runs = model.selectedRuns;
        if (!isHere()) {
          return model.setStatusMessage(
            trans.__('This works for runs of this machine only.')
          );
        }
        if (command.isEnabled(runs)) {
          return command.execute(runs, args);
        }
        const reason = command.disabledReason?.(runs);
        return reason ? model.setStatusMessage(reason) : undefined;
      }
    });
  }
  app.commands.addCommand('llf:chat-result', {
    describedBy: CHAT_RESULT_ARGS,
    label: trans.__('Chat with a result'),
    execute: ({ run }) => runCode(chatCode([run as string]))
  });
  app.commands.addCommand('llf:new-run', {
    describedBy: NEW_RUN_ARGS,
    label: trans.__('New LLF run'),
    caption: trans.__('Open the form in a new notebook'),
    icon: llfIcon,
    execute: async ({ cwd }) => {
      const folder = typeof cwd === 'string' ? cwd : undefined;
      const panel = await reportFailure(
        runInNewNotebook(app, 'llf.Studio()', folder)
      );
      if (panel === undefined) {
        model.setStatusMessage(OPENED_IN_NEW_TAB);
      }
      return panel; // JupyterLab replaces the launcher with it
    }
  });
  app.commands.addCommand('llf:undo-delete', {
    describedBy: NO_ARGS,
    label: trans.__('Restore the last deleted runs'),
    isEnabled: () => bin.canUndo,
    execute: () => bin.undoMove()
  });
}
