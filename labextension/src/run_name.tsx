import * as React from 'react';

/** Minimum length of a common prefix, in characters. */
const MIN_SHARED = 5;
/** Characters at the end of a name without a common prefix that are kept longest. */
const KEPT_SUFFIX = 8;
/** Maximum length of a word that stays together with the number after it, as in `lr 3e-3`. */
const MAX_UNIT_LENGTH = 6;
/** White space and control characters, which would break the line. */
const CONTROL_CHARACTERS = /[\s\p{Cc}]/gu;
const SEPARATOR = /[\s\-_./,=:]/;

/** The three parts of a name. The layout shortens the first part first and the last part last. */
export type NameParts = readonly [string, string, string];

/**
 * Splits names into common prefixes and the parts that differ, so that long names stay distinguishable in a narrow panel.
 *
 * @returns the parts of each name; joined, they are the name
 */
export function splitNames(names: readonly string[]): Map<string, NameParts> {
  const characters = new Map(names.map(name => [name, Array.from(name)]));
  const all = Array.from(characters.values());
  return new Map(
    Array.from(characters, ([name, nameCharacters]) => {
      const lengths = new Set(
        all
          .filter(other => other !== nameCharacters)
          .map(other => commonPrefixLength(nameCharacters, other))
      );
      const starts = Array.from(lengths)
        .filter(length => length >= MIN_SHARED)
        .map(length => wordStart(nameCharacters, length))
        .filter(start => start > 0);
      // A name without a common prefix: keep its last characters.
      const first = starts.length
        ? Math.min(...starts)
        : Math.max(0, nameCharacters.length - KEPT_SUFFIX);
      const last = starts.length ? Math.max(...starts) : first;
      const part = (from: number, to?: number): string =>
        nameCharacters.slice(from, to).join('');
      return [name, [part(0, first), part(first, last), part(last)]];
    })
  );
}

/** Returns the length of the common prefix of two names. */
function commonPrefixLength(
  one: readonly string[],
  other: readonly string[]
): number {
  let length = 0;
  while (length < one.length && one[length] === other[length]) {
    length++;
  }
  return length;
}

/** Returns where the word at an index begins; a short word before a number belongs to the number. */
function wordStart(characters: readonly string[], index: number): number {
  let start = Math.min(index, characters.length - 1);
  while (start > 0 && !isSeparator(characters, start - 1)) {
    start--;
  }
  if (/\d/.test(characters[start])) {
    let before = start - 1;
    while (before > 0 && !isSeparator(characters, before - 1)) {
      before--;
    }
    const unit = start - 1 - before;
    return before > 0 && unit > 0 && unit <= MAX_UNIT_LENGTH ? before : start;
  }
  return start;
}

/** Whether a character separates words; the `-` and `.` of numbers such as `3e-3` and `0.1` do not. */
function isSeparator(characters: readonly string[], index: number): boolean {
  if (!SEPARATOR.test(characters[index])) {
    return false;
  }
  const around = characters.slice(Math.max(0, index - 2), index + 2).join('');
  return !/\de-\d$|\d\.\d$/i.test(around);
}

/** A run name that is shortened where it equals other names. */
export function RunName({
  parts,
  title
}: {
  parts: NameParts;
  title?: string;
}): React.JSX.Element {
  const [head, middle, tail] = parts.map(part =>
    part.replace(CONTROL_CHARACTERS, ' ')
  );
  return (
    <span className="llf-RunsPanel-name" title={title}>
      {head && <span>{head}</span>}
      <span className="llf-RunsPanel-distinct">
        {middle && <span>{middle}</span>}
        <span>{tail}</span>
      </span>
    </span>
  );
}
