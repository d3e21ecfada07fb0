import type { JupyterFrontEnd } from '@jupyterlab/application';
import {
  Clipboard,
  Dialog,
  InputDialog,
  showDialog
} from '@jupyterlab/apputils';
import type { INotebookTracker } from '@jupyterlab/notebook';
import type { TranslationBundle } from '@jupyterlab/translation';

import type { IMeta, IRun, RunState } from './api';
import { askFields, askText } from './ask';
import { branchCode, called, viewCode } from './format';
import { LIVE, type RunsModel } from './model';
import { IMPORT, runInCell } from './notebook';

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

const RESUMABLE: readonly RunState[] = ['stopped', 'failed', 'lost'];
const GOING: readonly RunState[] = ['starting', 'running', 'stopping'];
/** A run that waits in the queue is taken out of it. */
const STOPPABLE: readonly RunState[] = ['created', ...GOING];

interface IAction {
  label: (runs: readonly IRun[]) => string;
  /** Whether it can be done with these runs. */
  fits: (runs: readonly IRun[]) => boolean;
  does: (runs: readonly IRun[]) => Promise<unknown>;
}

/** What can be done with the chosen runs, as commands of the application. */
export function addCommands(
  app: JupyterFrontEnd,
  model: RunsModel,
  tracker: INotebookTracker | null,
  trans: TranslationBundle
): void {
  const { api } = model;
  const one = (runs: readonly IRun[]): boolean => runs.length === 1;
  const cell = (code: string, fresh = false): Promise<boolean> =>
    runInCell(app, tracker, code, fresh);
  /** Does something to each run, and says so once. */
  const each = (
    runs: readonly IRun[],
    doing: (run: IRun) => Promise<void>,
    said: string
  ): Promise<boolean> =>
    model.act(async () => {
      for (const run of runs) {
        await doing(run);
      }
      return said;
    });
  const ask = (type: string, said: string) => (runs: readonly IRun[]) =>
    each(runs, run => api.control(run.id, type), said);

  const actions: Record<string, IAction> = {
    'llf:open-monitor': {
      label: () => trans.__('Open monitor'),
      fits: one,
      does: ([run]) => cell(viewCode([run.id]))
    },
    'llf:compare': {
      label: runs => trans.__('Compare %1 runs', runs.length),
      fits: runs => runs.length > 1 && runs.length <= 8,
      does: runs => cell(viewCode(runs.map(run => run.id)))
    },
    'llf:resume': {
      label: () => trans.__('Resume'),
      fits: runs => one(runs) && RESUMABLE.includes(runs[0].state),
      does: ([run]) =>
        cell(`run = llf.attach("${run.id}").resume()\nllf.Monitor(run)`)
    },
    'llf:branch': {
      label: () => trans.__('Branch from a checkpoint…'),
      fits: runs => one(runs) && runs[0].step > 0,
      does: ([run]) => branch(run)
    },
    'llf:evaluate': {
      label: () => trans.__('Evaluate loss'),
      fits: runs =>
        one(runs) && ['running', 'finished'].includes(runs[0].state),
      does: runs =>
        runs[0].state === 'running'
          ? ask('evaluate', trans.__('An evaluation is asked.'))(runs)
          : cell(`llf.losses("${runs[0].id}")`)
    },
    'llf:replay': {
      label: () => trans.__('Run it again'),
      fits: one,
      does: ([run]) =>
        cell(`run = llf.attach("${run.id}").replay()\nllf.Monitor(run)`)
    },
    'llf:stop': {
      label: () => trans.__('Stop with checkpoint'),
      fits: runs => runs.some(run => STOPPABLE.includes(run.state)),
      does: runs =>
        ask(
          'stop',
          trans.__('Stop is asked; it waits for the step under way.')
        )(runs.filter(run => STOPPABLE.includes(run.state)))
    },
    'llf:checkpoint': {
      label: () => trans.__('Checkpoint now'),
      fits: runs => one(runs) && runs[0].state === 'running',
      does: ask('checkpoint', trans.__('A checkpoint is asked.'))
    },
    'llf:kill': {
      label: () => trans.__('Kill…'),
      fits: runs => one(runs) && GOING.includes(runs[0].state),
      does: async ([run]) => {
        const { button } = await showDialog({
          title: trans.__('Kill %1?', called(run)),
          body: trans.__(
            'It ends at once; what came after its last checkpoint is lost.'
          ),
          defaultButton: 0, // Enter, pressed in haste, kills nothing
          buttons: [
            Dialog.cancelButton({ label: trans.__('Keep it going') }),
            Dialog.warnButton({ label: trans.__('Kill now') })
          ]
        });
        if (button.accept) {
          await ask('kill', trans.__('Killed.'))([run]);
        }
      }
    },
    'llf:copy-ids': {
      label: runs => trans._n('Copy id', 'Copy ids', runs.length),
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
      does: ([run]) =>
        change(run, async meta => {
          const { value } = await InputDialog.getText({
            title: trans.__('Name of the run'),
            text: meta.name
          });
          return value?.trim() ? { name: value.trim() } : null;
        })
    },
    'llf:tags': {
      label: () => trans.__('Tags…'),
      fits: one,
      does: ([run]) =>
        change(run, async meta => {
          const { value } = await InputDialog.getText({
            title: trans.__('Tags, with commas between them'),
            text: meta.tags.join(', ')
          });
          const tags = value?.split(',').map(tag => tag.trim());
          return tags ? { tags: tags.filter(Boolean) } : null;
        })
    },
    'llf:note': {
      label: () => trans.__('Note…'),
      fits: one,
      does: ([run]) =>
        change(run, async meta => {
          const value = await askText(trans.__('Note'), meta.note);
          return value === null ? null : { note: value };
        })
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
      does: runs =>
        model.act(async () => {
          await model.open(null);
          model.select();
          for (const run of runs) {
            await api.remove(run.id);
            model.removed = run;
          }
          return trans._n(
            '%2 is in the bin.',
            '%1 runs are in the bin; the last one is %2.',
            runs.length,
            called(runs[runs.length - 1])
          );
        })
    }
  };

  /** Has somebody change what views own; refused where another view did meanwhile. */
  const change = async (
    run: IRun,
    asked: (
      meta: IMeta
    ) => Promise<Partial<Pick<IMeta, 'name' | 'tags' | 'note'>> | null>
  ): Promise<boolean> => {
    let meta: IMeta;
    try {
      meta = await api.meta(run.id);
    } catch (error) {
      return model.act(() => Promise.reject(error));
    }
    const values = await asked(meta);
    return values === null
      ? false
      : model.act(async () => {
          await api.change(run.id, { revision: meta.revision, ...values });
          return trans.__('Changed.');
        });
  };

  /** Has somebody choose a checkpoint and what is otherwise from there on, and starts that in a cell. */
  const branch = async (run: IRun): Promise<boolean> => {
    let steps: readonly number[];
    try {
      steps = (await api.details(run.id)).checkpoints ?? [];
    } catch (error) {
      return model.act(() => Promise.reject(error));
    }
    if (!steps.length) {
      model.say(trans.__('%1 has no checkpoint to branch from.', called(run)));
      return false;
    }
    const options = steps.map(step => `${step}`).reverse();
    const values = await askFields(
      trans.__('Branch from %1', called(run)),
      trans.__(
        'A new run goes on at the checkpoint. What is left empty stays as it is.'
      ),
      trans.__('Start the branch'),
      [
        {
          name: 'step',
          label: trans.__('Checkpoint of step'),
          options,
          value: options[0]
        },
        { name: 'learning_rate', label: trans.__('Peak learning rate') },
        {
          name: 'max_steps',
          label: trans.__('End at step'),
          placeholder: run.total ? `${run.total}` : ''
        }
      ]
    );
    if (values === null) {
      return false;
    }
    const code = branchCode(run.id, values);
    if (code === null) {
      model.say(
        trans.__('Expected numbers for the learning rate and the last step.')
      );
      return false;
    }
    return cell(code);
  };

  for (const [id, action] of Object.entries(actions)) {
    app.commands.addCommand(id, {
      describedBy: NO_ARGUMENTS,
      label: () => action.label(model.selected),
      isEnabled: () => action.fits(model.selected),
      // A registry executes what is not enabled too.
      execute: () =>
        action.fits(model.selected) ? action.does(model.selected) : undefined
    });
  }
  app.commands.addCommand('llf:new-run', {
    describedBy: NO_ARGUMENTS,
    label: trans.__('New LLF run'),
    caption: trans.__('Open a notebook with the form'),
    execute: async () => {
      if (!(await cell('llf.Studio()', true))) {
        model.say(trans.__('In the new notebook, run: %1', 'llf.Studio()'));
      }
    }
  });
  app.commands.addCommand('llf:undo-delete', {
    describedBy: NO_ARGUMENTS,
    label: trans.__('Bring the last deleted run back'),
    isEnabled: () => model.removed !== null,
    execute: async () => {
      const run = model.removed;
      if (run) {
        await model.act(async () => {
          await api.restore(run.id);
          model.removed = null;
          return trans.__('%1 is back.', called(run));
        });
      }
    }
  });
}
