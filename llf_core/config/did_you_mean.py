"""Suggestions for misspelled names."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

SHOWN = 12
LETTERS_A_SLIP = 5
"""A name may have one slip for so many letters, and `MOST_SLIPS` at most, and still be a misspelling."""
MOST_SLIPS = 2
ALIKE = 0.6


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Suggest the nearest known name.

    Args:
        name: a name that is not known.
        known: the known names.

    Returns:
        The suggestion as a sentence with a leading space, or an empty text where no name is near.
    """
    near = nearest(name, known)
    return "" if near is None else f" Did you mean {near!r}?"


def any_of(names: Iterable[str]) -> str:
    """Join names as `a, b or c`."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Find the most similar known name, or None.

    Args:
        name: as it was written.
        known: names, those that are meant most often first; of a hub id, the part behind the slash counts alone too.
    """
    every = list(dict.fromkeys(known))
    slip = misspelt(name, every)
    if slip is not None:
        return slip
    begun = [one for one in every if len(name) >= LETTERS_A_SLIP and _plain(one).startswith(_plain(name))]
    if begun:
        return begun[0]
    plain: dict[str, str] = {}
    for one in every:
        for form in (one, one.rpartition("/")[2]) if "/" not in name else (one,):
            plain.setdefault(_plain(form), one)
    near = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=ALIKE)
    return plain[near[0]] if near else None


def misspelt(name: str, known: Iterable[str]) -> str | None:
    """Find the known name of which another is a misspelling: one or two letters differ, and no number does.

    `model-7b` is no misspelling of `model-3b`: a name with another number is another name.

    Args:
        name: a name that is not known.
        known: the known names.

    Returns:
        The known name with the fewest differing letters, or None.
    """
    found = []
    for one in known:
        slips = distance(_plain(name), _plain(one), MOST_SLIPS)
        if slips <= min(MOST_SLIPS, max(1, len(one) // LETTERS_A_SLIP)) and not _other_number(name, one):
            found.append((slips, one))
    return min(found, key=lambda pair: pair[0])[1] if found else None


def distance(one: str, other: str, most: int | None = None) -> int:
    """Damerau-Levenshtein distance of two texts: number of inserted, deleted, replaced or swapped letters.

    Args:
        one: a text.
        other: another.
        most: where it is more than this, any larger number may be returned.
    """
    if most is not None and abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        earlier, before, row = before, row, [i, *[0] * len(other)]
        for j, letter_2 in enumerate(other, 1):
            row[j] = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != letter_2))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == letter_2:
                row[j] = min(row[j], earlier[j - 2] + 1)
        if most is not None and min(row) > most:
            return most + 1
    return row[-1]


def listed(names: Iterable[str]) -> str:
    """Join the first names, with the number of the others."""
    every = list(names)
    more = f" and {len(every) - SHOWN} more" if len(every) > SHOWN else ""
    return (", ".join(every[:SHOWN]) or "none") + more


def _plain(name: str) -> str:
    return name.casefold().replace("_", "-").replace(" ", "-")


def _other_number(name: str, known: str) -> bool:
    """Whether two names have as many numbers, and other ones."""
    numbers, others = (re.findall(r"\d+", text) for text in (name, known))
    return len(numbers) == len(others) and numbers != others
