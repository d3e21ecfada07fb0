import { readFileSync } from 'node:fs';
import { expect, it } from 'vitest';

import { VERSION } from '../version';

const read = (path: string): string => readFileSync(path, 'utf8');

it('has the version of package.json and pyproject.toml', () => {
  expect(JSON.parse(read('package.json')).version).toBe(VERSION);
  const project = /^version = "(.+)"$/m.exec(read('../pyproject.toml'));
  expect(project?.[1]).toBe(VERSION);
});

it('takes its style from the shared sheet, line for line', () => {
  const shared = new Set(read('../llf_widgets/static/llf.css').split('\n'));
  const own = read('style/base.css').split('\n').slice(1);
  expect(own.filter(line => !shared.has(line))).toEqual([]);
});
