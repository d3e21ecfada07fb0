"""Queries of a list of runs, by words, state and order, and the entries of the index that they are matched with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.runs.metric_catalog import EVAL_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llf_core.runs.listing import Row
MAX_WORDS, MAX_CHARACTERS = 20, 200
"""Limits on a query, since each word is searched in each run."""


@dataclass(frozen=True)
class Entry:
    """Search, filter and sort keys of a run: `text` is its `searched_text`, `order` its `loss_order`."""

    text: str
    state: str
    name: str
    order: tuple[bool, float]
    output: bool
    evaluated: Mapping[str, float]
    directions: Mapping[str, bool]


IndexedRuns = list[tuple[str, Entry]]
ORDERS: dict[str, Callable[[IndexedRuns], IndexedRuns]] = {
    "newest": lambda found: found,
    "oldest": lambda found: found[::-1],
    "name": lambda found: sorted(found, key=lambda one: one[1].name),
    "state": lambda found: sorted(found, key=lambda one: one[1].state),
    "loss": lambda found: sorted(found, key=lambda one: one[1].order),
}
"""Sort orders, applied to a list that is newest first."""
BY_METRIC = "metric:"
"""Prefix of a sort order by a metric of evaluations: `metric:eval_rougeL`."""


class RunQuery:
    """Filter and sort order of a list of runs, see `list_runs`.

    Raises:
        ValueError: `sort` is unknown, or the query is too long.
    """

    def __init__(self, state: str | None = None, query: str | None = None, sort: str = "newest") -> None:
        if sort not in ORDERS and not sort.startswith(f"{BY_METRIC}{EVAL_PREFIX}"):
            raise ValueError(
                f"sort is {sort[:40]!r}. Expected one of {', '.join(ORDERS)}, or {BY_METRIC}{EVAL_PREFIX}NAME."
            )
        self.state, self.sort = state or None, sort
        self.search = Search(query or "")

    def matches(self, row: Row) -> bool:
        """Whether a row passes the filter, for rows that are not in the index."""
        return self.state in {None, row.state} and self.search.matches(row)

    @property
    def is_unfiltered(self) -> bool:
        """Whether the ids alone answer the query (no search, no filter, order by id)."""
        return not self.state and not self.search.words and self.sort in {"newest", "oldest"}


def loss_order(row: Row) -> tuple[bool, float]:
    """Sort key by loss: the lowest first, then runs without a loss and failed ones."""
    loss = math.inf if row.loss is None or math.isnan(row.loss) else row.loss
    return (loss == math.inf or row.state in {"failed", "broken"}, loss)


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
