"""Search for runs by words of their names, tags, notes and settings."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llf_core.runs.listing import Row

ID_PREFIX = 8
"""Minimum length of an id prefix that matches: a date."""
MAX_WORDS, MAX_CHARACTERS = 20, 200
"""Limits on a query, since each word is searched in each run."""


class Search:
    """A search query.

    Every word must match: the beginning of a word in name, tags, note, data, model, stage or method, or an id, or the
    beginning of an id of at least `ID_PREFIX` characters. No digit may follow a whole number: `experiment 12` matches
    neither `experiment 120` nor a run started at 12:00, but `experiment 12.5`.

    Args:
        text: words separated by spaces, case-insensitive.

    Raises:
        ValueError: the text has more than `MAX_CHARACTERS` characters or `MAX_WORDS` words.
    """

    def __init__(self, text: str) -> None:
        if len(text) > MAX_CHARACTERS:
            raise ValueError(
                f"The search has {len(text):,} characters. Expected at most {MAX_CHARACTERS}: use fewer words."
            )
        words = text.lower().split()
        if len(words) > MAX_WORDS:
            raise ValueError(f"The search has {len(words)} words. Expected at most {MAX_WORDS}.")
        self.words = tuple(sorted(set(words), key=lambda word: (-len(word), word)))
        """The words, each once, the longest first: it is found most seldom."""
        self._patterns = [(word, _pattern(word).search) for word in self.words]

    def matches(self, row: Row) -> bool:
        """Whether every word matches a run, as listed; for many runs use `matches_text`, which needs no row."""
        return self.matches_text(searched_text(row), row.id)

    def matches_text(self, text: str, run_id: str) -> bool:
        """Whether every word matches a run, by its cached text: thousands of runs are searched at each key press.

        Args:
            text: `searched_text` of its row.
            run_id: its id.
        """
        return all(
            (word in text and search(text)) or (len(word) >= ID_PREFIX and run_id.startswith(word)) or word == run_id
            for word, search in self._patterns
        )


def searched_text(row: Row) -> str:
    """The searchable text of a run in lower case, one field per line, so that no word spans two fields."""
    paths = (_shown(path) for path in (row.model, *row.dataset.split(",")))
    return "\n".join((row.name, *row.tags, row.note, *paths, row.stage, row.method)).lower()


LETTERS = r"a-z0-9\u00df-\u00f6\u00f8-\u024f\u0370-\u052f"
"""Digits, and lower case letters of scripts that write words apart: Latin, Greek and Cyrillic (a range of Unicode)."""


def _pattern(word: str) -> re.Pattern[str]:
    before = f"(?<![{LETTERS}])" if re.match(f"[{LETTERS}]", word) else ""
    after = r"(?![0-9])" if word.isdecimal() else ""
    return re.compile(before + re.escape(word) + after)


def _shown(path: str) -> str:
    """A file or folder name without its path; a hub id unchanged."""
    return path.rstrip("/").rpartition("/")[2] if path.startswith(("/", "~", ".")) else path
