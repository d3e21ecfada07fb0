import { ServerConnection } from '@jupyterlab/services';
import { describe, expect, it } from 'vitest';

import { Api, ApiError } from '../api';

function server(reply: () => Response | Promise<Response>) {
  const urls: string[] = [];
  const settings = ServerConnection.makeSettings({
    baseUrl: 'http://localhost:8888/user/a%40b/',
    token: 'secret',
    fetch: async (request: RequestInfo) => {
      urls.push((request as Request).url);
      return reply();
    }
  });
  return { api: new Api(settings), urls };
}

describe('Api', () => {
  it('asks under the base URL of a hub', async () => {
    const { api, urls } = server(() => Response.json({ total: 0, runs: [] }));
    expect(await api.runs(50)).toEqual({ total: 0, runs: [] });
    const url = new URL(urls[0]);
    expect(url.pathname).toBe('/user/a%40b/llf/api/runs');
    expect(url.searchParams.get('offset')).toBe('0');
    expect(url.searchParams.get('limit')).toBe('50');
  });

  it('tells a missing extension by its status', async () => {
    const { api } = server(() => new Response('', { status: 404 }));
    const error = await api.version().catch(reason => reason);
    expect(error).toBeInstanceOf(ApiError);
    expect(error.status).toBe(404);
  });

  it('says status 0 where no answer came', async () => {
    const { api } = server(() => Promise.reject(new TypeError('refused')));
    const error = await api.version().catch(reason => reason);
    expect(error).toBeInstanceOf(ApiError);
    expect(error.status).toBe(0);
  });
});
