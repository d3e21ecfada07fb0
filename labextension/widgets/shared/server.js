// Requests to LLF's routes of the Jupyter server, which work while the kernel is busy.

import {
  BROKEN_REPLY,
  NO_REPLY,
  refusalSentence
} from '../../src/error_sentences';

const TIMEOUT_MS = 8000;

/**
 * Returns base URL and token of the Jupyter server.
 * @returns {{base: string, token: string} | null} null on pages that are not Jupyter's (VS Code, Colab)
 */
export function jupyterServer() {
  const tag = document.getElementById('jupyter-config-data');
  if (!tag) {
    return null;
  }
  try {
    const config = JSON.parse(tag.textContent ?? '');
    return config.baseUrl
      ? { base: config.baseUrl, token: config.token ?? '' }
      : null;
  } catch {
    return null;
  }
}

/**
 * Sends a GET request to a route of LLF, or a POST request if there is a body. It never throws.
 * @param {string} route below `llf/api/`
 * @param {object} [body]
 * @returns {Promise<{status: number, answer: any}>} HTTP status and JSON. Unless the request
 *   succeeded, `message` of the answer is a sentence; status 0 if there is no server, or no whole response.
 */
export async function requestServer(route, body) {
  const server = jupyterServer();
  if (!server) {
    return failed('This page has no Jupyter server.');
  }
  /** @type {Record<string, string>} */
  const headers = { 'Content-Type': 'application/json' };
  const cookie = document.cookie.match(/(?:^|; )_xsrf=([^;]*)/);
  if (cookie) {
    headers['X-XSRFToken'] = decodeURIComponent(cookie[1]);
  }
  if (server.token) {
    headers['Authorization'] = `token ${server.token}`;
  }
  let response;
  try {
    response = await fetch(
      new URL(`${server.base}llf/api/${route}`, location.href),
      {
        method: body ? 'POST' : 'GET',
        credentials: 'same-origin',
        headers,
        body: body ? JSON.stringify(body) : undefined,
        signal: AbortSignal.timeout(TIMEOUT_MS)
      }
    );
  } catch {
    return failed(NO_REPLY);
  }
  const { status, ok } = response;
  const answer = await response.json().catch(() => null);
  if (!ok) {
    return {
      status,
      answer: { ...answer, message: refusalSentence(status, answer) }
    };
  }
  return answer === null ? failed(BROKEN_REPLY) : { status, answer };
}

function failed(/** @type {string} */ message) {
  return { status: 0, answer: { message } };
}
