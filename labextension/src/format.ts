import type { TranslationBundle } from '@jupyterlab/translation';

import type { IRun, RunState } from './api';

/** The word of a state. */
export function stateWord(state: RunState, trans: TranslationBundle): string {
  const words: Record<RunState, string> = {
    created: trans.__('created'),
    starting: trans.__('starting'),
    running: trans.__('running'),
    stopping: trans.__('stopping'),
    finished: trans.__('finished'),
    stopped: trans.__('stopped'),
    failed: trans.__('failed'),
    lost: trans.__('lost'),
    broken: trans.__('broken')
  };
  return words[state] ?? state;
}

/** `running 93/141`; the word alone where no step is known. */
export function stepText(run: IRun, trans: TranslationBundle): string {
  const word = stateWord(run.state, trans);
  return run.total ? `${word} ${run.step}/${run.total}` : word;
}

/** How long ago, in the largest unit: `40 s`, `7 min`, `3 h`, `2 d`. */
export function age(seconds: number, trans: TranslationBundle): string {
  const value = Math.max(0, seconds);
  if (value < 60) {
    return trans.__('%1 s', Math.floor(value));
  }
  if (value < 3600) {
    return trans.__('%1 min', Math.floor(value / 60));
  }
  if (value < 86_400) {
    return trans.__('%1 h', Math.floor(value / 3600));
  }
  return trans.__('%1 d', Math.floor(value / 86_400));
}

/** The line of Python that shows a run in a notebook. */
export function monitorCode(id: string): string {
  return `llf.Monitor("${id}")`;
}
