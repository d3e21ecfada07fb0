import type { TranslationBundle } from '@jupyterlab/translation';

import type { ICounted, IRun, RunState } from './api';

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

/** Seconds as `0:12`, `7:10`, `2:03:11` or `3 d 4 h`. */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  if (whole >= 172_800) {
    return `${Math.floor(whole / 86_400)} d ${Math.floor((whole % 86_400) / 3600)} h`;
  }
  const two = (value: number): string => `${value}`.padStart(2, '0');
  const minutes = Math.floor(whole / 60);
  return minutes < 60
    ? `${minutes}:${two(whole % 60)}`
    : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(whole % 60)}`;
}

// Numbers are written as by llf_core/runs/formatting.py; tests/number_formats.json holds both to the same cases.

/** A logged number as JSON has it: one that is not finite is spelled out, as in `"NaN"`. */
export type Logged = number | string | null | undefined;

/** Bytes with three digits and a decimal unit: `9.80 MB`. */
export function bytes(logged: Logged): string {
  return finite(logged, size);
}

function size(amount: number): string {
  for (const [unit, factor] of [
    ['TB', 1e12],
    ['GB', 1e9],
    ['MB', 1e6],
    ['kB', 1e3]
  ] as const) {
    const scaled = Number((amount / factor).toPrecision(3));
    if (scaled >= 1) {
      return `${fixed(scaled, Math.max(0, 2 - Math.floor(Math.log10(scaled))))} ${unit}`;
    }
  }
  return `${fixed(amount, 0)} bytes`;
}

/** A quantity, such as a loss: four digits, at most four decimals; below 0.001 two and an exponent. */
export function short(logged: Logged): string {
  return finite(logged, value => {
    const size = Math.abs(value);
    if (size === 0) {
      return '0';
    }
    if (size < 1e-3 || size >= 1e9) {
      return exponent(value, 1);
    }
    const power = Number(size.toExponential(3).split('e')[1]);
    return fixed(value, Math.min(4, Math.max(0, 3 - power)));
  });
}

/** A learning rate: at most three digits, below 0.01 with an exponent: `5e-5`, `0.05`. */
export function rate(logged: Logged): string {
  return finite(logged, value =>
    value !== 0 && Math.abs(value) < 0.01
      ? exponent(value, 2)
      : `${Number(value.toPrecision(3))}`
  );
}

/** A whole count with its thousands separated: `571,455`. */
export function count(logged: Logged): string {
  return finite(logged, value => fixed(value, 0));
}

/** A number that counts, as its form says: `83 %`, `62`, `-0.2130`. */
export function written({ value, form }: Pick<ICounted, 'value' | 'form'>) {
  if (form === 'share') {
    return finite(value, share => `${fixed(100 * share, 0)} %`);
  }
  return form === 'count' ? count(value) : short(value);
}

function finite(logged: Logged, write: (value: number) => string): string {
  if (logged === null || logged === undefined) {
    return '–';
  }
  const value = Number(logged);
  if (Number.isNaN(value)) {
    return 'NaN';
  }
  if (!Number.isFinite(value)) {
    return value > 0 ? 'infinity' : '-infinity';
  }
  return write(value);
}

/** With so many decimals and the thousands separated; not by `toLocaleString`, which rounds otherwise. */
function fixed(value: number, decimals: number): string {
  const [whole, rest] = value.toFixed(decimals).split('.');
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ',');
  return rest === undefined ? grouped : `${grouped}.${rest}`;
}

/** With an exponent, and without zeros that say nothing: `5e-5`. */
function exponent(value: number, decimals: number): string {
  const [mantissa, power] = value.toExponential(decimals).split('e');
  return `${Number(mantissa)}e${Number(power)}`;
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
