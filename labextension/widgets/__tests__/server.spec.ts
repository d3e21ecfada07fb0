import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { runFeed } from '../monitor/feed.js';
import { requestServer } from '../shared/server.js';

/** Replies to each request with a status and a text. */
function reply(status: number, text: string): void {
  vi.stubGlobal('fetch', async () => new Response(text, { status }));
}

beforeEach(() => {
  document.body.innerHTML =
    '<script id="jupyter-config-data" type="application/json">{"baseUrl": "/"}</script>';
});
afterEach(() => {
  vi.unstubAllGlobals();
  document.body.replaceChildren();
});

describe('a request to the server', () => {
  it.each([
    [200, '{"total": 1, "ru', 0, 'The Jupyter server did not send its whole reply.'],
    [200, '<html>Log in</html>', 0, 'The Jupyter server did not send its whole reply.'],
    [409, '{"message": "The run has ended."}', 409, 'The run has ended.'],
    [403, '{"message": "Forbidden"}', 403, 'The Jupyter server answered 403 (Forbidden).'],
    [502, '<html>Bad gateway</html>', 502, 'The Jupyter server answered 502.']
  ])('is answered %i %s, which is said in a sentence', async (sent, text, status, message) => {
    reply(sent, text);
    expect(await requestServer('version')).toEqual({
      status,
      answer: { message }
    });
  }); // prettier-ignore

  it('is not answered, on a page with a server and without one', async () => {
    vi.stubGlobal('fetch', () => Promise.reject(new TypeError('Failed')));
    const silent = await requestServer('version');
    expect(silent.answer.message).toBe('The Jupyter server does not answer.');
    document.body.replaceChildren();
    const absent = await requestServer('version');
    expect(absent.answer.message).toBe('This page has no Jupyter server.');
  });
});

describe('the source of a monitor', () => {
  it('is not said to use another LLF_HOME for a reply that ends too early', async () => {
    reply(200, '{"home": "h", "no');
    const feed = runFeed({ run: 'one', home: 'h' });
    await vi.waitFor(() => expect(feed.failure()).not.toBe(''));
    feed.close();
    expect(feed.failure()).toBe(
      'The Jupyter server did not send its whole reply.'
    );
  });
});
