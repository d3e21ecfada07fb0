import type { TranslationBundle } from '@jupyterlab/translation';

import type { IRun } from './api';
import { askForm, FieldError, type Values } from './dialogs';
import { called } from './format';
import type { RunsModel } from './model';

const NUMBER = /^(0|[1-9]\d*)?(\.\d+)?(e[-+]?\d+)?$/i;

/**
 * Asks for a checkpoint and changed settings.
 *
 * @param step - the checkpoint that is proposed; the last one unless given
 * @param trust - the argument that allows the run's code
 * @returns code that branches the run there; null where it has no checkpoint or the dialog was dismissed
 */
export async function askBranch(
  model: RunsModel,
  run: IRun,
  trans: TranslationBundle,
  step?: number,
  trust = ''
): Promise<string | null> {
  let steps: readonly number[];
  try {
    steps = (await model.api.details(run.id)).checkpoints ?? [];
  } catch (error) {
    await model.act(() => Promise.reject(error));
    return null;
  }
  if (!steps.length) {
    model.say(trans.__('“%1” has no checkpoint to branch from.', called(run)));
    return null;
  }
  const options = steps.map(one => `${one}`).reverse();
  let code: string | null = null;
  await askForm({
    title: trans.__('Branch from “%1”', called(run)),
    about: trans.__(
      'Starts a new run from the checkpoint. Empty fields keep their values.'
    ),
    accept: trans.__('Start branch'),
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
 * Code that branches a run.
 *
 * @param values - what somebody typed
 * @throws {FieldError} where a number is none, or out of range
 */
export function branchCode(
  id: string,
  values: Values,
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
