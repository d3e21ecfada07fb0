"""Which runs a search finds: words of what people name, never a part of an id by accident."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llf_core.runs.listing import Row

ID_PREFIX = 8
"""Characters of an id from which on its beginning finds it: a date."""
MOST_WORDS, LONGEST = 20, 200
"""Words and characters of a search, at most: each word is looked for in each run."""


class Search:
    """A search for runs.

    Every word must be found: at the beginning of a word in name, tags, note, data, model, stage or method, a number as
    a whole one, or as an id or its beginning. `experiment 12` finds neither `experiment 120` nor what began at 12:00.

    Args:
        text: words with blanks between them, in any case.

    Raises:
        ValueError: the text is longer than `LONGEST` characters, or has more than `MOST_WORDS` words.
    """

    def __init__(self, text: str) -> None:
        if len(text) > LONGEST:
            raise ValueError(f"The search has {len(text):,} characters. Expected at most {LONGEST}: use fewer words.")
        words = text.lower().split()
        if len(words) > MOST_WORDS:
            raise ValueError(f"The search has {len(words)} words. Expected at most {MOST_WORDS}.")
        self.words = tuple(sorted(set(words), key=lambda word: (-len(word), word)))
        """The words, each once, the longest first: it is found most seldom."""
        self._patterns = [(word, _pattern(word).search) for word in self.words]

    def finds(self, row: Row) -> bool:
        """Whether a run matches every word."""
        return self.finds_in(searched_text(row), row.id)

    def finds_in(self, text: str, run_id: str) -> bool:
        """Whether a run matches every word.

        Args:
            text: `searched_text` of its row.
            run_id: its id.
        """
        return all(
            (word in text and search(text)) or (len(word) >= ID_PREFIX and run_id.startswith(word)) or word == run_id
            for word, search in self._patterns
        )


def searched_text(row: Row) -> str:
    """What is searched of a run, in lower case: all that people name, a line each."""
    paths = (_shown(path) for path in (row.model, *row.dataset.split(",")))
    return "\n".join((row.name, *row.tags, row.note, *paths, row.stage, row.method)).lower()


def _pattern(word: str) -> re.Pattern[str]:
    before = r"(?<![a-z0-9])" if re.match(r"[a-z0-9]", word) else ""
    after = r"(?![0-9])" if word.isdecimal() else ""
    return re.compile(before + re.escape(word) + after)


def _shown(path: str) -> str:
    """The name of a file or a folder without where it lies; the id of a hub as it is."""
    return path.rstrip("/").rpartition("/")[2] if path.startswith(("/", "~", ".")) else path
