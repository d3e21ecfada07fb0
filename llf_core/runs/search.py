"""Which runs a search finds: words of what people name, never a part of an id by accident."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llf_core.runs.listing import Row

ID_PREFIX = 8
"""Characters of an id from which on its beginning finds it: a date."""


class Search:
    """A search for runs.

    Every word must be found: at the beginning of a word in name, tags, note, data, model, stage or method, a number as
    a whole one, or as an id or its beginning. `experiment 12` finds neither `experiment 120` nor what began at 12:00.

    Args:
        text: words with blanks between them, in any case.
    """

    def __init__(self, text: str) -> None:
        self._words = text.lower().split()
        self._patterns = [_pattern(word) for word in self._words]

    def finds(self, row: Row) -> bool:
        """Whether a run matches every word."""
        paths = (_shown(path) for path in (row.model, *row.dataset.split(",")))
        text = "\n".join((row.name, *row.tags, row.note, *paths, row.stage, row.method)).lower()
        return all(
            pattern.search(text) or (len(word) >= ID_PREFIX and row.id.startswith(word)) or word == row.id
            for word, pattern in zip(self._words, self._patterns, strict=True)
        )


def _pattern(word: str) -> re.Pattern[str]:
    before = r"(?<![a-z0-9])" if re.match(r"[a-z0-9]", word) else ""
    after = r"(?![0-9])" if word.isdecimal() else ""
    return re.compile(before + re.escape(word) + after)


def _shown(path: str) -> str:
    """The name of a file or a folder without where it lies; the id of a hub as it is."""
    return path.rstrip("/").rpartition("/")[2] if path.startswith(("/", "~", ".")) else path
