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
