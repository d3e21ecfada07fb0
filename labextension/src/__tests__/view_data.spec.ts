import { describe, expect, it } from 'vitest';

import { readView } from '../view_data';

describe('the data of an output', () => {
  it('is taken as it is written', () => {
    const view = {
      view: 'monitor',
      run: '20261124-142530-demo',
      home: 'f00',
      state: 'running',
      step: 3
    };
    expect(readView(view)).toEqual(view);
  });

  it('may be anything', () => {
    for (const odd of [null, undefined, 3, 'x', [], [1], {}]) {
      expect(readView(odd)).toEqual({ view: '' });
    }
    expect(readView({ view: {}, state: 1, step: '3' })).toEqual({ view: '' });
  });

  it('names no run by what can be no id', () => {
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
      expect(readView({ view: 'monitor', run, home: 'f00' })).toEqual({
        view: 'monitor'
      });
    }
    expect(readView({ view: 'monitor', run: 'a', home: {} })).toEqual({
      view: 'monitor'
    });
  });
});
