// Sentences about errors, for the panel and the notebook views.

import type { TranslationBundle } from '@jupyterlab/translation';

/** The server did not reply at all. */
export const NO_REPLY = 'The Jupyter server does not answer.';

/** A reply whose end is missing, or that comes from a proxy. */
export const BROKEN_REPLY = 'The Jupyter server did not send its whole reply.';

/** Returns a text with a full stop at its end, unless it ends with punctuation. */
export function asSentence(text: string): string {
  return text.replace(/[^.!?…]$/, '$&.');
}

/** Returns the message of an error as a sentence. */
export function errorSentence(error: unknown): string {
  return asSentence(error instanceof Error ? error.message : `${error}`);
}

/** Says that a cell could not run, and why. */
export function cellNotRunSentence(
  error: unknown,
  trans: Pick<TranslationBundle, '__'>
): string {
  return trans.__(
    'The cell did not run: %1 Choose a kernel for the notebook, then run the cell.',
    errorSentence(error)
  );
}

/**
 * Returns why the server refused a request, as a sentence. LLF's routes send one; Jupyter's own errors are a word such
 * as `Forbidden`, and those of a proxy have no JSON.
 *
 * @param status - the HTTP status
 * @param body - the JSON of the reply; anything else counts as none
 */
export function refusalSentence(status: number, body: unknown): string {
  const { message } = (body ?? {}) as { message?: unknown };
  if (typeof message !== 'string' || !message) {
    return `The Jupyter server answered ${status}.`;
  }
  return /[.!?…]$/.test(message)
    ? message
    : `The Jupyter server answered ${status} (${message}).`;
}
