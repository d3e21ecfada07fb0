// Requests of the monitor to a run: through the Jupyter server, which answers while the kernel is busy, or the kernel.

import { asSentence } from '../../src/error_sentences';
import { runInPageCell } from '../shared/page_cell.js';
import { requestServer } from '../shared/server.js';

/** @import { Feed } from './feed.js' */
/** @typedef {{ok: boolean, text: string}} Result `text` is a sentence or two */

/** Requests that the trainer handles between two steps; the others take effect at once. */
const HANDLED_BETWEEN_STEPS = [
  'stop',
  'checkpoint',
  'evaluate',
  'sample',
  'set'
];

/** @type {Record<string, string>} */
const REQUEST_LABELS = {
  stop: 'Stop',
  checkpoint: 'Checkpoint',
  evaluate: 'Evaluation',
  sample: 'Sample',
  set: 'Change',
  kill: 'Kill',
  resume: 'Resume',
  code: 'Code'
};

/**
 * Creates the functions that send a run's requests.
 * @param {Feed} feed
 * @param {(text: string) => void} onProgress called with a sentence for each step of a request
 * @param {() => void} onSlow called if the kernel does not answer
 */
export function runRequests(feed, onProgress, onSlow) {
  /** Says that a request was received, and how long it may take. */
  function received(/** @type {string} */ text, /** @type {string} */ type) {
    const delay = HANDLED_BETWEEN_STEPS.includes(type)
      ? feed.get('head')?.request_delay
      : '';
    return asSentence(delay ? `${text}, ${delay}` : text);
  }

  const route = (/** @type {string} */ name) =>
    `runs/${encodeURIComponent(feed.run)}/${name}`;

  /**
   * Sends a request to the server or, if the server cannot answer, to the kernel.
   * @param {string} type
   * @param {object} args
   * @returns {Promise<Result>} whether it was received, and by which of the two
   */
  async function send(type, args) {
    onProgress(
      `${REQUEST_LABELS[type]}: sending the request to the Jupyter server…`
    );
    const { status, answer } = await requestServer(route('control'), {
      type,
      args,
      by: 'monitor'
    });
    if (status === 202) {
      return {
        ok: true,
        text: received(
          `${REQUEST_LABELS[type]} requested through the Jupyter server`,
          type
        )
      };
    }
    if (status === 409 || status === 400) {
      return { ok: false, text: answer.message };
    }
    return sendToKernel(type, args, ` ${answer.message}`);
  }

  /**
   * Sends a request to the kernel.
   * @param {string} type
   * @param {object} args
   * @param {string} why a sentence after a space that says why the server did not receive it; empty if it was not asked
   * @returns {Promise<Result>}
   */
  async function sendToKernel(type, args, why) {
    if (!feed.hasKernel) {
      return {
        ok: false,
        text: `${REQUEST_LABELS[type]} request not sent.${why} Try again.`
      };
    }
    onProgress(`${REQUEST_LABELS[type]}: sending the request to the kernel…`);
    const { ok, text } = await feed.requestKernel(type, args, () => {
      onProgress(
        `${REQUEST_LABELS[type]} request waits in the kernel until the running cell ends.${why} If no cell is running, the kernel has shut down: open llf.Monitor in another notebook.`
      );
      onSlow();
    });
    return { ok, text: ok ? `${received(text, type)}${why}` : text };
  }

  /**
   * Resumes the run by this view's kernel or in a cell.
   * @param {string} trust hash of the code that the user has allowed; empty if the run has no foreign code
   * @returns {Promise<Result>}
   */
  async function resume(trust) {
    const call = `llf.attach(${JSON.stringify(feed.run)}).resume(${trust && `trust=${JSON.stringify(trust)}`})`;
    if (feed.hasKernel) {
      return sendToKernel('resume', { trust }, '');
    }
    const problem = await runInPageCell(call, feed.page);
    return {
      ok: !problem,
      text: problem || 'Resuming in the cell below.'
    };
  }

  /**
   * Returns the foreign code that a resume would execute, with its hash; an empty object if it is not known. The resume
   * itself refuses code that is not allowed.
   * @returns {Promise<{code?: import('../../src/api').IForeignCode[], sha256?: string}>}
   */
  async function foreignCode() {
    if (feed.source() === 'server') {
      return (await requestServer(route('code'))).answer;
    }
    const { ok, text } = feed.hasKernel
      ? await sendToKernel('code', {}, '')
      : { ok: false, text: '' };
    return ok ? JSON.parse(text) : {};
  }

  return { send, resume, foreignCode };
}
