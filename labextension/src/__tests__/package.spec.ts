import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

import { VERSION } from '../version';

const read = (path: string): string => readFileSync(path, 'utf8');

it('has the version of the Python packages', () => {
  const project = /^__version__ = "(.+)"$/m.exec(
    read('../llf_core/__init__.py')
  );
  expect(project?.[1]).toBe(VERSION);
});

it('copies its base style from the shared style sheet line by line', () => {
  const shared = read('widgets/shared/llf.css').split('\n');
  const own = read('style/base.css').split('\n').slice(1).filter(Boolean);
  const places = own.map(line => shared.indexOf(line));
  expect(own.filter((_, at) => places[at] < 0)).toEqual([]);
  expect(places).toEqual([...places].sort((one, other) => one - other));
});
