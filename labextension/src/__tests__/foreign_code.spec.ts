import { describe, expect, it } from 'vitest';

import { foreignCodeElements } from '../foreign_code';
import { untranslated } from '../untranslated';

const file = (name: string) => ({
  name,
  path: `/m/${name}`,
  lines: ['a', 'b']
});
const CODE = {
  owner: 'the model m',
  folder: '/m/<b>',
  sha256: 'ab'.repeat(32),
  files: [file('one.py'), file('two.py')],
  more: 0,
  references: []
};

describe('code that came with a run or a model', () => {
  it('is shown as text, with what it belongs to and its hash', () => {
    const [place, first] = foreignCodeElements(CODE, untranslated);
    expect(place.textContent).toBe(
      'The model m, in /m/<b> (SHA-256 abababababab)'
    );
    expect(place.title).toBe(CODE.sha256);
    expect(first.querySelector('summary')?.textContent).toBe('one.py');
    expect(first.querySelector('pre')?.textContent).toBe('a\nb');
    expect((first as HTMLDetailsElement).open).toBe(true);
  });

  it('names what refers to it, and how much is not shown', () => {
    const files = ['one.py', 'two.py', 'three.py'].map(file);
    const references = ['config.json: AutoModel of one.M', 'x: y'];
    const text = (more: number) =>
      foreignCodeElements({ ...CODE, files, more, references }, untranslated);
    const texts = text(1).map(one => one.textContent);
    expect(texts.slice(4)).toEqual([
      'and 1 more file',
      'Referenced by: config.json: AutoModel of one.M; x: y'
    ]);
    expect(text(2)[4].textContent).toBe('and 2 more files');
    expect((text(1)[1] as HTMLDetailsElement).open).toBe(false);
  });
});

it('leaves a place without a value as it is', () => {
  expect(untranslated.__('%1 of %2, %3', 'a', '%1')).toBe('a of %1, %3');
});
