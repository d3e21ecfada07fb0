// Copies the version of LLF, which is only in llf_core/__init__.py, to where the panel needs it: into src/version.ts
// before a build, and with --built into the package.json of the built panel.
import { copyFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';

const source = readFileSync('../llf_core/__init__.py', 'utf8');
const version = /^__version__ = "(.+)"$/m.exec(source)?.[1];
if (!version) {
  throw new Error(
    'llf_core/__init__.py has no line `__version__ = "…"`, which names the version of LLF.'
  );
}

if (process.argv.includes('--built')) {
  const built = '../llf_widgets/labextension';
  const data = JSON.parse(readFileSync(`${built}/package.json`, 'utf8'));
  writeFileSync(
    `${built}/package.json`,
    JSON.stringify({ ...data, version }, null, 2) + '\n'
  );
  copyFileSync('install.json', `${built}/install.json`);
} else {
  const text = `/** Written by version.mjs from llf_core/__init__.py. */\nexport const VERSION = '${version}';\n`;
  const path = 'src/version.ts';
  if (!existsSync(path) || readFileSync(path, 'utf8') !== text) {
    writeFileSync(path, text);
  }
}
