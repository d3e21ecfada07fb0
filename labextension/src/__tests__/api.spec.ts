import { ServerConnection } from '@jupyterlab/services';
import { describe, expect, it } from 'vitest';

import { Api, ApiError } from '../api';

function server(
  reply: (request: Request) => Response | Promise<Response>,
  readTimeout?: number
) {
  const urls: string[] = [];
  const requests: Request[] = [];
  const settings = ServerConnection.makeSettings({
    baseUrl: 'http://localhost:8888/user/a%40b/',
    token: 'secret',
    fetch: async (request: RequestInfo) => {
      urls.push((request as Request).url);
      requests.push(request as Request);
      return reply(request as Request);
    }
  });
  return { api: new Api(settings, readTimeout), urls, requests };
}

describe('Api', () => {
  it('sends requests below the base URL of a hub', async () => {
    const { api, urls } = server(() => Response.json({ total: 0, runs: [] }));
    const wanted = {
      limit: 50,
      query: 'a&b',
      state: '',
      sort: 'name'
    } as const;
    expect(await api.listRuns(wanted)).toEqual({ total: 0, runs: [] });
    const url = new URL(urls[0]);
    expect(url.pathname).toBe('/user/a%40b/llf/api/runs');
    expect(url.searchParams.get('offset')).toBe('0');
    expect(url.searchParams.get('limit')).toBe('50');
    expect(url.searchParams.get('query')).toBe('a&b');
    expect(url.searchParams.get('sort')).toBe('name');
  });

  it('names the host in what is about its runs', async () => {
    const { api, urls } = server(() => Response.json({ hosts: [], runs: [] }));
    api.host = 'me@box:22';
    await api.listRuns({ limit: 1, query: '', state: '', sort: 'newest' });
    await api.sendRequest('a', 'stop');
    await api.listHosts();
    expect(urls.map(url => new URL(url).searchParams.get('host'))).toEqual([
      'me@box:22',
      'me@box:22',
      null
    ]);
    expect(api.exportUrl('a', 'k')).toMatch(/k\.zip\?host=me%40box%3A22$/);
  });

  it('puts run ids into the path and changes into the body', async () => {
    const { api, requests } = server(() => Response.json({ id: null }));
    await api.sendRequest('20261124-demo', 'stop');
    await api.updateMeta('20261124-demo', { revision: 1, name: 'new' });
    await api.moveToBin('20261124-demo');
    await api.restore('20261124-demo');
    const seen = await Promise.all(
      requests.map(async request => [
        request.method,
        new URL(request.url).pathname.replace('/user/a%40b/llf/api/', ''),
        await request.text()
      ])
    );
    expect(seen).toEqual([
      ['POST', 'runs/20261124-demo/control', '{"type":"stop","by":"sidebar"}'],
      ['PATCH', 'runs/20261124-demo/meta', '{"revision":1,"name":"new"}'],
      ['POST', 'runs/20261124-demo/bin', '{}'],
      ['POST', 'bin/20261124-demo/restore', '{}']
    ]);
  });

  it("passes on the server's error message", async () => {
    const { api } = server(() =>
      Response.json({ message: 'The run is finished.' }, { status: 409 })
    );
    const error = await api.sendRequest('a', 'stop').catch(reason => reason);
    expect([error.status, error.message]).toEqual([
      409,
      'The run is finished.'
    ]);
  });

  it.each([
    [{ message: 'Forbidden', reason: null }, 403, '403 (Forbidden)'],
    [{}, 500, '500'],
    [[], 500, '500'],
    ['<html>', 502, '502']
  ])('makes a sentence of %j', async (body, status, said) => {
    const { api } = server(
      () => new Response(JSON.stringify(body), { status })
    );
    const error = await api.version().catch(reason => reason);
    expect(error.message).toBe(`The Jupyter server answered ${said}.`);
  });

  it('reports a missing extension by its status', async () => {
    const { api } = server(() => new Response('', { status: 404 }));
    const error = await api.version().catch(reason => reason);
    expect(error).toBeInstanceOf(ApiError);
    expect(error.status).toBe(404);
  });

  it('reports status 0 if the server does not answer', async () => {
    const { api } = server(() => Promise.reject(new TypeError('refused')));
    const error = await api.version().catch(reason => reason);
    expect(error).toBeInstanceOf(ApiError);
    expect(error.status).toBe(0);
  });

  it('stops waiting for a reply that got lost', async () => {
    const { api } = server(
      ({ signal }) =>
        new Promise((_, reject) =>
          signal.addEventListener('abort', () => reject(signal.reason))
        ),
      20
    );
    const error = await api.version().catch(reason => reason);
    expect([error.status, error.message]).toEqual([
      0,
      'The Jupyter server does not answer.'
    ]);
  });

  it('reports a reply that ends too early', async () => {
    const { api } = server(() => new Response('{"total": 1, "ru'));
    const error = await api.version().catch(reason => reason);
    expect([error.status, error.message]).toEqual([
      0,
      'The Jupyter server did not send its whole reply.'
    ]);
  });
});
