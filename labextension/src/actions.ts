import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Clipboard, Dialog, showDialog } from '@jupyterlab/apputils';
import type { INotebookTracker } from '@jupyterlab/notebook';
import type { TranslationBundle } from '@jupyterlab/translation';

import { ApiError, type IRun, type RunState } from './api';
import type { BinActions } from './bin_actions';
import { askBranch } from './branch';
import { Edits } from './edits';
import { called, viewCode } from './format';
import { llfIcon } from './icon';
import { LIVE, type RunsModel } from './model';
import { type Bundle, IMPORT, runInCell, runInNewNotebook } from './notebook';
import { askTrust } from './trust';

/** The commands of the context menu, in its order; null is a line between. */
export const MENU: readonly (string | null)[] = [
  'llf:open-monitor',
  'llf:compare',
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

/** What the commands take: nothing, they are for the runs that are chosen. */
export const NO_ARGUMENTS = {
  args: { type: 'object', properties: {} }
} as const;

/** What *Branch* takes: the checkpoint to propose. */
const BRANCH_ARGUMENTS = {
  args: {
    type: 'object',
    properties: {
      step: {
        type: 'integer',
        description: 'The checkpoint to propose; the last one unless given.'
      }
    }
  }
} as const;

/** What *New run* takes: where the launcher stands. */
const NEW_RUN_ARGUMENTS = {
  args: {
    type: 'object',
    properties: {
      cwd: {
        type: 'string',
        description: 'The folder of the notebook; the one shown unless given.'
      }
    }
  }
} as const;

const RESUMABLE: readonly RunState[] = ['stopped', 'failed', 'lost'];
const GOING: readonly RunState[] = ['starting', 'running', 'stopping'];

interface IAction {
  label: (runs: readonly IRun[]) => string;
  /** Whether it can be done with these runs. */
  fits: (runs: readonly IRun[]) => boolean;
  does: (
    runs: readonly IRun[],
    args: { readonly step?: unknown }
  ) => Promise<unknown>;
  /** Why it can not, where a key may ask for it all the same. */
  why?: (runs: readonly IRun[]) => string;
  describedBy?: typeof NO_ARGUMENTS | typeof BRANCH_ARGUMENTS;
}

/** What can be done with the chosen runs, as commands of the application. */
export function addCommands(
  app: JupyterFrontEnd,
  model: RunsModel,
  tracker: INotebookTracker | null,
  bin: BinActions,
  trans: TranslationBundle
): void {
  const { api } = model;
  const edits = new Edits(model, trans);
  const one = (runs: readonly IRun[]): boolean => runs.length === 1;
  const ELSEWHERE = trans.__(
    'Run the cell in the notebook that opened in a new tab.'
  );
  /** Says what kept a cell from running. */
  const saying = async <T>(running: Promise<T>): Promise<T | null> => {
    try {
      return await running;
    } catch (error) {
      model.say(
        trans.__(
          'The cell did not run: %1 Choose a kernel for the notebook, then run the cell.',
          error instanceof Error ? error.message : `${error}`
        )
      );
      return null;
    }
  };
  const cell = async (code: string, shown?: Bundle): Promise<void> => {
    if ((await saying(runInCell(app, tracker, code, shown))) === false) {
      model.say(ELSEWHERE);
    }
  };
  /** Trains a run again, or on. */
  const again = async (run: IRun, how: string): Promise<void> => {
    const trust = await askTrust(model, run, trans);
    if (trust !== null) {
      await cell(
        `run = llf.attach("${run.id}").${how}(${trust})\nllf.Monitor(run)`
      );
    }
  };
  /** Shows a monitor, which needs no kernel where the server tells all that it shows. */
  const openMonitor = async (run: IRun): Promise<unknown> => {
    let shown: Bundle | undefined;
    try {
      shown = await api.summary(run.id);
    } catch (error) {
      if (!(error instanceof ApiError) || [0, 404].includes(error.status)) {
        return model.act(() => Promise.reject(error));
      }
      // The server cannot tell of the run; what its kernel can is shown then.
    }
    return cell(viewCode([run.id]), shown);
  };
  /** Sends a request to each run. */
  const ask = (type: string, said: string) => (runs: readonly IRun[]) =>
    model.each(
      runs,
      run => api.control(run.id, type),
      () => said
    );

  const actions: Record<string, IAction> = {
    'llf:open-monitor': {
      label: () => trans.__('Open monitor'),
      fits: one,
      does: ([run]) => openMonitor(run)
    },
    'llf:compare': {
      label: runs => trans.__('Compare %1 runs', runs.length),
      fits: runs => runs.length > 1 && runs.length <= 8,
      does: runs => cell(viewCode(runs.map(run => run.id)))
    },
    'llf:resume': {
      label: () => trans.__('Resume'),
      fits: runs => one(runs) && RESUMABLE.includes(runs[0].state),
      does: ([run]) => again(run, 'resume')
    },
    'llf:branch': {
      label: () => trans.__('Branch from a checkpoint…'),
      fits: runs => one(runs) && runs[0].step > 0,
      describedBy: BRANCH_ARGUMENTS,
      does: async ([run], { step }) => {
        const trust = await askTrust(model, run, trans);
        if (trust === null) {
          return;
        }
        const code = await askBranch(model, run, trans, step as number, trust);
        return code !== null && cell(code);
      }
    },
    'llf:evaluate': {
      label: () => trans.__('Evaluate loss'),
      fits: runs =>
        one(runs) && ['running', 'finished'].includes(runs[0].state),
      does: runs =>
        runs[0].state === 'running'
          ? ask('evaluate', trans.__('Evaluation requested.'))(runs)
          : cell(`llf.losses("${runs[0].id}")`)
    },
    'llf:replay': {
      label: () => trans.__('Run again'),
      fits: one,
      does: ([run]) => again(run, 'replay')
    },
    'llf:stop': {
      label: () => trans.__('Stop with checkpoint'),
      fits: runs => runs.some(run => LIVE.includes(run.state)),
      does: runs =>
        ask(
          'stop',
          trans.__('Stopping after the current step.')
        )(runs.filter(run => LIVE.includes(run.state)))
    },
    'llf:checkpoint': {
      label: () => trans.__('Save checkpoint'),
      fits: runs => one(runs) && runs[0].state === 'running',
      does: ask('checkpoint', trans.__('Checkpoint requested.'))
    },
    'llf:kill': {
      label: () => trans.__('Kill…'),
      fits: runs => one(runs) && GOING.includes(runs[0].state),
      does: async ([run]) => {
        const { button } = await showDialog({
          title: trans.__('Kill “%1”?', called(run)),
          body: trans.__(
            'The run ends at once. Steps after its last checkpoint are lost.'
          ),
          defaultButton: 0, // Enter, pressed in haste, kills nothing
          buttons: [
            Dialog.cancelButton({ label: trans.__('Keep running') }),
            Dialog.warnButton({ label: trans.__('Kill now') })
          ]
        });
        if (button.accept) {
          await ask('kill', trans.__('Run killed.'))([run]);
        }
      }
    },
    'llf:copy-ids': {
      label: runs => trans._n('Copy run id', 'Copy run ids', runs.length),
      fits: runs => runs.length > 0,
      does: async runs => {
        Clipboard.copyToSystem(runs.map(run => run.id).join('\n'));
        await model.act(async () => trans.__('Copied.'));
      }
    },
    'llf:copy-paths': {
      label: runs => trans._n('Copy path', 'Copy paths', runs.length),
      fits: runs => runs.length > 0 && model.version !== null,
      does: async runs => {
        const folder = model.version?.folder;
        Clipboard.copyToSystem(
          runs.map(run => `${folder}/${run.id}`).join('\n')
        );
        await model.act(async () => trans.__('Copied.'));
      }
    },
    'llf:copy-code': {
      label: () => trans.__('Copy as code'),
      fits: runs => runs.length > 0 && runs.length <= 8,
      does: async runs => {
        const code = viewCode(runs.map(run => run.id));
        Clipboard.copyToSystem(`${IMPORT}\n${code}`);
        await model.act(async () => trans.__('Copied. Paste it into a cell.'));
      }
    },
    'llf:rename': {
      label: () => trans.__('Rename…'),
      fits: one,
      does: ([run]) => edits.rename(run)
    },
    'llf:tags': {
      label: runs =>
        runs.length > 1
          ? trans.__('Edit tags of %1 runs…', runs.length)
          : trans.__('Edit tags…'),
      fits: runs => runs.length > 0,
      does: runs => edits.tags(runs)
    },
    'llf:note': {
      label: () => trans.__('Edit note…'),
      fits: one,
      does: ([run]) => edits.note(run)
    },
    'llf:delete': {
      label: runs =>
        trans._n(
          'Move %1 run to the bin',
          'Move %1 runs to the bin',
          runs.length
        ),
      fits: runs =>
        runs.length > 0 && runs.every(run => !LIVE.includes(run.state)),
      does: runs => bin.remove(runs),
      why: runs => {
        const live = runs.find(run => LIVE.includes(run.state));
        return live
          ? trans.__(
              '“%1” is still running. Stop it before you move it to the bin.',
              called(live)
            )
          : '';
      }
    }
  };

  for (const [id, action] of Object.entries(actions)) {
    app.commands.addCommand(id, {
      describedBy: action.describedBy ?? NO_ARGUMENTS,
      label: () => action.label(model.selected),
      isEnabled: () => action.fits(model.selected),
      // A registry executes what is not enabled too.
      execute: args => {
        const runs = model.selected;
        if (action.fits(runs)) {
          return action.does(runs, args);
        }
        const why = action.why?.(runs);
        return why ? model.say(why) : undefined;
      }
    });
  }
  app.commands.addCommand('llf:new-run', {
    describedBy: NEW_RUN_ARGUMENTS,
    label: trans.__('New LLF run'),
    caption: trans.__('Open the form in a new notebook'),
    icon: llfIcon,
    execute: async ({ cwd }) => {
      const folder = typeof cwd === 'string' ? cwd : undefined;
      const panel = await saying(runInNewNotebook(app, 'llf.Studio()', folder));
      if (panel === undefined) {
        model.say(ELSEWHERE);
      }
      return panel; // takes the place of the launcher
    }
  });
  app.commands.addCommand('llf:undo-delete', {
    describedBy: NO_ARGUMENTS,
    label: trans.__('Restore the last deleted runs'),
    isEnabled: () => bin.canUndo,
    execute: () => bin.undo()
  });
}
