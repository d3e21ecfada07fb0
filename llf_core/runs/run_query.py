"""Queries of a list of runs, and the entries of the index that they are matched with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.runs.metric_catalog import EVAL_PREFIX
from llf_core.runs.search import Search

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from llf_core.runs.listing import Row


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
