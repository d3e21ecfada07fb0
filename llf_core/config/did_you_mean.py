from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_LISTED = 12
LETTERS_PER_EDIT = 5
"""A misspelling may differ by one letter per this many letters of the name, and by at most `MAX_EDITS`; by hand."""
MAX_EDITS = 2
MIN_SIMILARITY = 0.6
"""Least ratio of `difflib.SequenceMatcher`; the default of `difflib.get_close_matches`."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` Did you mean …?` with the nearest known name; empty if no name is similar."""
    near = nearest(name, known)
    return "" if near is None else f" Did you mean {near!r}?"


def any_of(names: Iterable[str]) -> str:
    """Join names as `a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Find the most similar known name, or None.

    A misspelling comes first (`misspelt`), then a name that begins with the given one, if that has at least five
    characters, then a similar one (`MIN_SIMILARITY`).

    Args:
        known: names, those that are meant most often first. If the name has no slash, a hub id is also compared by its
            part after the slash.
    """
    every = list(dict.fromkeys(known))
    misspelling = misspelt(name, every)
    if misspelling is not None:
        return misspelling
    begun = [one for one in every if len(name) >= LETTERS_PER_EDIT and _plain(one).startswith(_plain(name))]
    if begun:
        return begun[0]
    plain: dict[str, str] = {}
    for one in every:
        for form in (one, one.rpartition("/")[2]) if "/" not in name else (one,):
            plain.setdefault(_plain(form), one)
    near = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=MIN_SIMILARITY)
    return plain[near[0]] if near else None


def misspelt(name: str, known: Iterable[str]) -> str | None:
    """Find the known name that another one misspells: few letters differ (`LETTERS_PER_EDIT`), and no number does.

    Stricter than `nearest`, so that the result may turn a warning into an error: `model-7b` does not misspell
    `model-3b`. Case, and `_` or a space for `-`, do not count as differences.
    """
    found = []
    for one in known:
        edits = distance(_plain(name), _plain(one), MAX_EDITS)
        if edits <= min(MAX_EDITS, max(1, len(one) // LETTERS_PER_EDIT)) and not _other_number(name, one):
            found.append((edits, one))
    return min(found, key=lambda pair: pair[0])[1] if found else None


def distance(one: str, other: str, limit: int | None = None) -> int:
    """Optimal string alignment distance: number of inserted, deleted, replaced or swapped letters.

    Damerau, A technique for computer detection and correction of spelling errors, CACM 7(3), 1964, without further
    edits of swapped letters.

    Args:
        limit: stop early if the distance is larger; the result is then any number above it.
    """
    if limit is not None and abs(len(one) - len(other)) > limit:
        return limit + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        earlier, before, row = before, row, [i, *[0] * len(other)]
        for j, letter_2 in enumerate(other, 1):
            row[j] = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != letter_2))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == letter_2:
                row[j] = min(row[j], earlier[j - 2] + 1)
        if limit is not None and min(row) > limit:
            return limit + 1
    return row[-1]


def listed(names: Iterable[str]) -> str:
    """Join the first 12 names with commas, and the number of the others; `none` without names."""
    every = list(names)
    more = f" and {len(every) - MAX_LISTED} more" if len(every) > MAX_LISTED else ""
    return (", ".join(every[:MAX_LISTED]) or "none") + more


def _plain(name: str) -> str:
    return name.casefold().replace("_", "-").replace(" ", "-")


def _other_number(name: str, known: str) -> bool:
    numbers, others = (re.findall(r"\d+", text) for text in (name, known))
    return len(numbers) == len(others) and numbers != others
