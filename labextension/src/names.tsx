import * as React from 'react';

/** How much of a name must be shared before it counts as the same beginning. */
const SHARED = 5;
/** How much of the end of a name like no other is kept. */
const END = 8;
/** The longest word that is read together with the number behind it, as in `lr 3e-3`. */
const UNIT = 6;
/** What would break the line or move the caret. */
const UNSEEN = /[\s\p{Cc}]/gu;
const SEPARATOR = /[\s\-_./,=:]/;

/** A name in parts that are shortened one after the other: the first one first. */
export type Parts = readonly [string, string, string];

/**
 * Takes names apart where they differ: what several share stands in front, what tells them apart behind it.
 *
 * @returns name → its parts, which together are the name
 */
export function takeApart(names: readonly string[]): Map<string, Parts> {
  const letters = new Map(names.map(name => [name, Array.from(name)]));
  const all = Array.from(letters.values());
  return new Map(
    Array.from(letters, ([name, own]) => {
      const lengths = new Set(
        all.filter(other => other !== own).map(other => shared(own, other))
      );
      const starts = Array.from(lengths)
        .filter(length => length >= SHARED)
        .map(length => wordStart(own, length))
        .filter(start => start > 0);
      // Alone, the last letters say the most.
      const first = starts.length
        ? Math.min(...starts)
        : Math.max(0, own.length - END);
      const last = starts.length ? Math.max(...starts) : first;
      const part = (from: number, to?: number): string =>
        own.slice(from, to).join('');
      return [name, [part(0, first), part(first, last), part(last)]];
    })
  );
}

/** How many letters two names begin with alike. */
function shared(one: readonly string[], other: readonly string[]): number {
  let length = 0;
  while (length < one.length && one[length] === other[length]) {
    length++;
  }
  return length;
}

/** Where the word begins that a place is in, with a short word before a number. */
function wordStart(letters: readonly string[], place: number): number {
  let start = Math.min(place, letters.length - 1);
  while (start > 0 && !separates(letters, start - 1)) {
    start--;
  }
  if (/\d/.test(letters[start])) {
    let before = start - 1;
    while (before > 0 && !separates(letters, before - 1)) {
      before--;
    }
    const unit = start - 1 - before;
    return before > 0 && unit > 0 && unit <= UNIT ? before : start;
  }
  return start;
}

/** Whether a letter stands between words, and not within a number as in `3e-3` and `0.1`. */
function separates(letters: readonly string[], place: number): boolean {
  if (!SEPARATOR.test(letters[place])) {
    return false;
  }
  const around = letters.slice(Math.max(0, place - 2), place + 2).join('');
  return !/\de-\d$|\d\.\d$/i.test(around);
}

/** A name that is shortened where it is like others, and shown where it differs. */
export function Name({
  parts,
  title
}: {
  parts: Parts;
  title?: string;
}): React.JSX.Element {
  const [head, middle, tail] = parts.map(part => part.replace(UNSEEN, ' '));
  return (
    <span className="llf-RunsPanel-name" title={title}>
      {head && <span>{head}</span>}
      <span className="llf-RunsPanel-differs">
        {middle && <span>{middle}</span>}
        <span>{tail}</span>
      </span>
    </span>
  );
}
