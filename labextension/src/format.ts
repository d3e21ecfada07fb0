import type { TranslationBundle } from '@jupyterlab/translation';

import type { ICounted, IRun, RunState } from './api';
import { count, duration, quantity, share } from './numbers';

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

/** States whose reason a list tells. */
const EXPLAINED: readonly RunState[] = ['created', 'failed', 'lost', 'broken'];

/** Why a run is in its state, where a list tells it; else empty. */
export function reasonText(run: IRun): string {
  return EXPLAINED.includes(run.state) ? printable(run.reason ?? '') : '';
}

/**
 * `running 93/141, 3:33 left`, `failed 12/141: Out of memory.`; the word alone where no step is known.
 */
export function stepText(run: IRun, trans: TranslationBundle): string {
  const word = stateWord(run.state, trans);
  const steps = run.total ? `${word} ${run.step}/${run.total}` : word;
  if (run.remaining !== null) {
    return trans.__('%1, %2 left', steps, duration(run.remaining));
  }
  const reason = reasonText(run);
  return reason ? trans.__('%1: %2', steps, reason) : steps;
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

/** A number that counts, as its form says: `83 %`, `62`, `-0.2130`. */
export function written({ value, form }: Pick<ICounted, 'value' | 'form'>) {
  if (form === 'share') {
    return share(value);
  }
  return form === 'count' ? count(value) : quantity(value);
}

/** Code that shows a run, or several side by side, in a notebook. */
export function viewCode(ids: readonly string[]): string {
  const names = ids.map(id => `"${id}"`);
  return ids.length === 1
    ? `llf.Monitor(${names[0]})`
    : `llf.Compare([${names.join(', ')}])`;
}

/** What a terminal colours text with, and characters that nobody sees. */
const UNSEEN =
  // eslint-disable-next-line no-control-regex
  /\u001b\[[0-9;?]*[ -/]*[@-~]|[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

/** Text of a run without what only a terminal understands. */
export function printable(text: string): string {
  return text.replace(UNSEEN, '');
}

const CALLED = 48; // letters; as one word they still fit in a dialog

/** What a run is called within a sentence: not long, and nothing in it turns the words around it. */
export function called(run: Pick<IRun, 'id' | 'name'>): string {
  const plain = run.name.replace(/[\p{Cc}\p{Bidi_Control}\s]+/gu, ' ').trim();
  const letters = Array.from(plain || run.id);
  if (letters.length <= CALLED) {
    return letters.join('');
  }
  const half = CALLED / 2; // runs of a sweep differ at the end
  return `${letters.slice(0, half).join('')}…${letters.slice(-half).join('')}`;
}
