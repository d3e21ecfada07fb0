"""Finds words in texts as bytes: they begin at a single space between two words, and around special tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import re
    from collections.abc import Sequence

    from numpy.typing import NDArray

BLANK = 0x20
SPACES = np.zeros(256, dtype=bool)
"""Single bytes that are whitespace in Python, whose definition is wider than Unicode's."""
SPACES[[*range(0x09, 0x0E), *range(0x1C, 0x21)]] = True
WIDE = [*"\x85\xa0\u1680", *map(chr, range(0x2000, 0x200B)), *"\u2028\u2029\u202f\u205f\u3000"]
"""Whitespace that has two or three bytes in UTF-8."""


def byte_offsets(texts: Sequence[str], places: Sequence[Sequence[int]]) -> list[list[int]]:
    """Byte offsets (UTF-8) of each text in the concatenation, and of positions in it."""
    found, start = [], 0
    for text, own in zip(texts, places, strict=True):
        if text.isascii():
            found.append([start, *(start + place for place in own)])
            start += len(text)
        else:
            found.append([start, *(start + len(text[:place].encode()) for place in own)])
            start += len(text.encode())
    return found


def word_starts(data: bytes, borders: NDArray[np.int64], signs: re.Pattern[bytes] | None) -> NDArray[np.int64]:
    """First byte of each word, `[words + 1]`: at borders, around special tokens, and at spaces between two words.

    Args:
        data: the texts, UTF-8.
        borders: bytes where a text or piece begins, ascending, the first one 0.
        signs: pattern of the tokens that split a text wherever they occur.
    """
    raw = np.frombuffer(data, np.uint8)
    begins = np.zeros(len(raw) + 1, dtype=bool)
    blanks = np.flatnonzero(raw == BLANK)
    before, after = blanks - 1, np.minimum(blanks + 1, len(raw) - 1)
    apart = ~(SPACES[raw[before]] | SPACES[raw[after]])
    if not data.isascii():
        apart &= ~(_ends_wide(raw, before) | _begins_wide(raw, after))
    begins[blanks[apart]] = True
    if signs is not None:
        around = np.array([match.span() for match in signs.finditer(data)], np.int64).reshape(-1, 2)
        # A match across a border is not a token, and the matches after it may be wrong.
        if (np.searchsorted(borders, around[:, 0], side="right") == np.searchsorted(borders, around[:, 1])).all():
            borders = np.concatenate([borders, around.ravel()])
    # A space at the end or the beginning of a text is not between two words; the first word includes the latter.
    begins[borders[borders > 0] - 1] = False
    begins[borders] = True
    return np.append(np.flatnonzero(begins[: len(raw)]), len(raw))


def _begins_wide(raw: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether multi-byte whitespace begins at a position."""
    found = np.isin(raw[places], [one.encode()[0] for one in WIDE])
    begun = places[found][:, None] + np.arange(3)
    read = raw[np.minimum(begun, len(raw) - 1)]
    found[found] = _is_one(read, [one.encode() for one in WIDE])
    return found


def _ends_wide(raw: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether multi-byte whitespace ends at a position, judged by its last two bytes."""
    found = np.isin(raw[places], [one.encode()[-1] for one in WIDE])
    read = raw[places[found][:, None] + np.arange(-1, 1)]
    found[found] = _is_one(read, [one.encode()[-2:] for one in WIDE])
    return found


def _is_one(read: NDArray[np.uint8], wanted: list[bytes]) -> NDArray[np.bool_]:
    """Whether each row of bytes begins with one of the given sequences."""
    found = np.zeros(len(read), dtype=bool)
    for one in set(wanted):
        found |= (read[:, : len(one)] == list(one)).all(axis=1)
    return found
