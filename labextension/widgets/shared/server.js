// The Jupyter server's own road to the runs: it works while the kernel is busy.

/** @returns {{base: string, token: string} | null} null where the page is not Jupyter's (VS Code, Colab) */
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
 * Asks the server of LLF, or (with a body) tells it something.
 * @param {string} route below `llf/api/`
 * @param {object} [body]
 * @returns {Promise<{status: number, answer: any}>} status 0 where no server could be asked
 */
export async function requestServer(route, body) {
  const server = jupyterServer();
  if (!server) {
    return {
      status: 0,
      answer: { message: 'this page has no Jupyter server' }
    };
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
  try {
    const response = await fetch(
      new URL(`${server.base}llf/api/${route}`, location.href),
      {
        method: body ? 'POST' : 'GET',
        credentials: 'same-origin',
        headers,
        body: body ? JSON.stringify(body) : undefined,
        signal: AbortSignal.timeout(8000)
      }
    );
    const answer = await response.json().catch(() => ({}));
    return { status: response.status, answer };
  } catch (error) {
    return {
      status: 0,
      answer: {
        message: error instanceof Error ? error.message : String(error)
      }
    };
  }
}
