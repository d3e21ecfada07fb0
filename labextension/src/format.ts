import type { TranslationBundle } from '@jupyterlab/translation';

import type { IKeyMetric, IRun, MetricForm, RunState } from './api';
import {
  formatBytes,
  formatCount,
  formatDuration,
  formatNumber,
  formatRate,
  formatShare,
  type LoggedValue
} from './numbers';

/** Returns the translated word for a state. */
export function stateLabel(state: RunState, trans: TranslationBundle): string {
  const labels: Record<RunState, string> = {
    queued: trans.__('queued'),
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
  return labels[state] ?? state;
}

/** States whose reason the list shows. */
const STATES_WITH_REASON: readonly RunState[] = [
  'queued',
  'failed',
  'lost',
  'broken'
];

/**
 * Returns why a run is in its state, for the states whose reason the list shows, or what speaks against its result;
 * otherwise an empty string.
 */
export function reasonText(run: IRun): string {
  return stripControlCharacters(
    (STATES_WITH_REASON.includes(run.state) ? run.reason : run.finding) ?? ''
  );
}

/**
 * Returns the state and progress of a run, for example `running 93/141, 3:33 left` or `failed 12/141: Out of memory.`
 * Before the number of steps is known, it is the state alone.
 */
export function progressText(run: IRun, trans: TranslationBundle): string {
  const label = stateLabel(run.state, trans);
  const steps = run.total ? `${label} ${run.step}/${run.total}` : label;
  if (run.remaining !== null) {
    return trans.__('%1, %2 left', steps, formatDuration(run.remaining));
  }
  const reason = reasonText(run);
  return reason ? trans.__('%1: %2', steps, reason) : steps;
}

/** Formats an age in its largest unit: `40 s`, `7 min`, `3 h`, `2 d`. */
export function formatAge(seconds: number, trans: TranslationBundle): string {
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

const FORMATS: Record<MetricForm, (value: LoggedValue) => string> = {
  number: formatNumber,
  share: formatShare,
  count: formatCount,
  rate: formatRate,
  bytes: formatBytes
};

/** Formats a metric as its `form` says: `83 %`, `62`, `-0.2130`, `5e-5`, `1.61 GB`. */
export function formatMetric({
  value,
  form
}: Pick<IKeyMetric, 'value' | 'form'>) {
  return FORMATS[form](value);
}

/** Returns the Python code that shows one run in a monitor, or several side by side. */
export function viewCode(ids: readonly string[]): string {
  const names = ids.map(id => `"${id}"`);
  return ids.length === 1
    ? `llf.Monitor(${names[0]})`
    : `llf.Compare([${names.join(', ')}])`;
}

/**
 * Returns the Python code of a chat with runs; one run stands beside its base model.
 *
 * @param step - a checkpoint of the only run; by default its newest weights
 */
export function chatCode(ids: readonly string[], step?: number): string {
  const [id] = ids;
  const tuned = step === undefined ? id : `${id}@${step}`;
  const targets = ids.length === 1 ? [`${id}@base`, tuned] : ids;
  return `llf.Chat(${targets.map(target => `"${target}"`).join(', ')})`;
}

/** Returns the Python code that evaluates runs; one run stands beside its base model. */
export function evaluateCode(ids: readonly string[]): string {
  return `llf.Evaluate(${ids.map(id => `"${id}"`).join(', ')})`;
}

/** ANSI escape sequences and control characters except tab and line feed. */
const CONTROL_CHARACTERS =
  // eslint-disable-next-line no-control-regex
  /\u001b\[[0-9;?]*[ -/]*[@-~]|[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g;

/** Removes ANSI escape sequences and control characters, which libraries write for terminals. */
export function stripControlCharacters(text: string): string {
  return text.replace(CONTROL_CHARACTERS, '');
}

const MAX_LENGTH = 48; // characters; a single word of this length still fits into a dialog

/**
 * Returns the name of a run for use within a sentence: shortened in the middle, and without control and bidirectional
 * characters, which could reorder the words around it.
 */
export function displayName(run: Pick<IRun, 'id' | 'name'>): string {
  const plain = run.name.replace(/[\p{Cc}\p{Bidi_Control}\s]+/gu, ' ').trim();
  const characters = Array.from(plain || run.id);
  if (characters.length <= MAX_LENGTH) {
    return characters.join('');
  }
  const half = MAX_LENGTH / 2; // the names of a sweep differ at their end
  return `${characters.slice(0, half).join('')}…${characters.slice(-half).join('')}`;
}
