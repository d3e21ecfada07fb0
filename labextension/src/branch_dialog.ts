import type { TranslationBundle } from '@jupyterlab/translation';

import type { IRun } from './api';
import { showFormDialog, FieldError, type FormValues } from './form_dialog';
import { displayName } from './format';
import type { RunsModel } from './model';

const NUMBER = /^(0|[1-9]\d*)?(\.\d+)?(e[-+]?\d+)?$/i;

/**
 * Asks for a checkpoint and changed settings, and returns the code that starts the branch.
 *
 * @param step - the checkpoint that is preselected; the last one by default
 * @param trust - the argument of the call that allows the code of the run
 * @returns the code for a cell; null if the run has no checkpoint or the user cancels
 */
export async function showBranchDialog(
  model: RunsModel,
  run: IRun,
  trans: TranslationBundle,
  step?: number,
  trust = ''
): Promise<string | null> {
  let steps: readonly number[];
  try {
    steps = (await model.api.runDetails(run.id)).checkpoints ?? [];
  } catch (error) {
    await model.showError(error);
    return null;
  }
  if (!steps.length) {
    model.setStatusMessage(
      trans.__('“%1” has no checkpoint to branch from.', displayName(run))
    );
    return null;
  }
  const options = steps.map(checkpoint => `${checkpoint}`).reverse();
  let code: string | null = null;
  await showFormDialog({
    title: trans.__('Branch from “%1”', displayName(run)),
    description: trans.__(
      'Starts a new run from the checkpoint. Empty fields keep their values.'
    ),
    acceptLabel: trans.__('Start branch'),
    fields: [
      {
        name: 'step',
        label: trans.__('Checkpoint at step'),
        options,
        value:
          step !== undefined && steps.includes(step) ? `${step}` : options[0]
      },
      {
        name: 'learning_rate',
        label: trans.__('Peak learning rate'),
        placeholder: trans.__('for example 1e-4')
      },
      {
        name: 'max_steps',
        label: trans.__('End at step'),
        placeholder: run.total ? `${run.total}` : ''
      }
    ],
    submit: async values => {
      code = branchCode(run.id, values, trans, trust);
    }
  });
  return code;
}

/**
 * Returns the Python code that branches a run. A kernel executes it, because the server starts no processes.
 *
 * @param values - the values of the dialog
 * @throws {FieldError} if a value is not a number or is out of range
 */
export function branchCode(
  id: string,
  values: FormValues,
  trans: TranslationBundle,
  trust = ''
): string {
  const { step, learning_rate: rate, max_steps: end } = values;
  if (rate && !(NUMBER.test(rate) && Number(rate) > 0)) {
    throw new FieldError(
      'learning_rate',
      trans.__(
        'The peak learning rate is “%1”. Expected a number above 0, for example 1e-4.',
        rate
      )
    );
  }
  if (end && !(/^[1-9]\d{0,8}$/.test(end) && Number(end) > Number(step))) {
    throw new FieldError(
      'max_steps',
      trans.__(
        'The last step is “%1”. Expected an integer above %2, the step of the checkpoint.',
        end,
        step
      )
    );
  }
  const changes =
    (rate ? `, learning_rate=${rate}` : '') +
    (end ? `, max_steps=${end}` : '') +
    (trust && `, ${trust}`);
  return `run = llf.attach("${id}").branch(${step}${changes})\nllf.Monitor(run)`;
}
