import { describe, expect, it, vi } from 'vitest';
import { runFeed } from '../monitor/feed.js';
import { runRequests } from '../monitor/requests.js';
import { runInPageCell } from '../shared/page_cell.js';

describe('code that a view runs in a cell', () => {
  it('leaves nothing to do once the cell runs', async () => {
    const runCell = vi.fn(async () => true);
    expect(await runInPageCell('llf.Examples("one")', { runCell })).toBe('');
    expect(runCell).toHaveBeenCalledWith('llf.Examples("one")');
  });

  it('is shown on a page that has no cells to run', async () => {
    expect(await runInPageCell('llf.x()', undefined)).toContain('llf.x()');
    expect(await runInPageCell('llf.x()', {})).toContain('llf.x()');
  });

  it('is run by the reader where it is in another tab', async () => {
    const text = await runInPageCell('1', { runCell: async () => false });
    expect(text).toContain('opened in a new tab');
  });

  it('says why no kernel started', async () => {
    for (const why of ['No kernel starts.', 'No kernel starts']) {
      const runCell = () => Promise.reject(new Error(why));
      expect(await runInPageCell('1', { runCell })).toContain(
        'The cell did not run: No kernel starts. Choose a kernel'
      );
    }
  });
});

describe('resuming a run in a cell', () => {
  it('can be tried again after no kernel started', async () => {
    const runCell = vi
      .fn<(code: string) => Promise<unknown>>()
      .mockRejectedValueOnce(new Error('No kernel starts.'))
      .mockResolvedValueOnce(true);
    const feed = runFeed({ run: 'one', home: 'h', page: { runCell } });
    const { resume } = runRequests(
      feed,
      () => undefined,
      () => undefined
    );
    expect((await resume('')).ok).toBe(false);
    expect(await resume('')).toEqual({
      ok: true,
      text: 'Resuming in the cell below.'
    });
    expect(runCell).toHaveBeenLastCalledWith('llf.attach("one").resume()');
    feed.close();
  });
});
