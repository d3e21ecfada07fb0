import { describe, expect, it } from 'vitest';

import { parseViewData } from '../view_data';

describe('the view data of an output', () => {
  it('is parsed as it was written', () => {
    const view = {
      view: 'monitor',
      run: '20261124-142530-demo',
      home: 'f00',
      state: 'running',
      step: 3
    };
    expect(parseViewData(view)).toEqual(view);
  });

  it('may be anything', () => {
    for (const odd of [null, undefined, 3, 'x', [], [1], {}]) {
      expect(parseViewData(odd)).toEqual({ view: '' });
    }
    expect(parseViewData({ view: {}, state: 1, step: '3' })).toEqual({
      view: ''
    });
  });

  it('has no run if the id is invalid', () => {
    for (const run of [
      '.',
      '..',
      '../x',
      'a/b',
      '%2e%2e',
      '<b>',
      '__proto__',
      'x'.repeat(200),
      3,
      {},
      ['a'],
      ''
    ]) {
      expect(parseViewData({ view: 'monitor', run, home: 'f00' })).toEqual({
        view: 'monitor'
      });
    }
    expect(parseViewData({ view: 'monitor', run: 'a', home: {} })).toEqual({
      view: 'monitor'
    });
  });
});
