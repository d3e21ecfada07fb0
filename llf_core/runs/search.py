"""Search for runs by parts of their ids, names, tags, notes and settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llf_core.runs.listing import Row

MAX_WORDS, MAX_CHARACTERS = 20, 200
"""Limits on a query, since each word is searched in each run."""


class Search:
    """A search query of words separated by spaces, case-insensitive.

    Every word must be a part of the name, a tag, the note, the data, the model, the stage, the method, or the id behind
    its time. The first word may also be the beginning of an id, and no later one: `lora 20` finds names with 20, not
    the year of every id.

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
        """The words, each once, the longest and thus rarest first."""
        self.first = words[0] if words and words[0] not in words[1:] else ""

    def matches(self, row: Row) -> bool:
        """Whether every word matches a run, as listed."""
        text = searched_text(row)
        return all(self.finds(word, text, row.id) for word in self.words)

    def finds(self, word: str, text: str, run_id: str) -> bool:
        """Whether one of the words matches a run, by `searched_text` of its row."""
        return word in text or (word == self.first and run_id.startswith(word))


def searched_text(row: Row) -> str:
    """The searchable text of a run in lower case, one field per line, so that no word spans two fields."""
    paths = (_shown(path) for path in (row.model, *row.dataset.split(",")))
    behind_time = row.id.split("-", 2)[-1]
    return "\n".join((row.name, *row.tags, row.note, *paths, row.stage, row.method, behind_time)).lower()


def _shown(path: str) -> str:
    """A file or folder name without its path; a hub id unchanged."""
    return path.rstrip("/").rpartition("/")[2] if path.startswith(("/", "~", ".")) else path
