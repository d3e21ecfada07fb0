"""Notable records: dropped, truncated, duplicated, or leaked from evaluation into training data."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from llf_core.config.number_format import with_unit
from llf_core.data.formats.conversation import UNANSWERED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from llf_core.data.report import DataReport

KINDS = ("dropped", "cut", "divided", "doubled", "leaked")
EXTRA_KINDS = ("unanswered", "longest")
"""Kinds that are not part of `all`: records dropped because they have no answer, and the longest examples."""
MAX_LONGEST = 100
MAX_DUPLICATES_NAMED = 3


class Notable(NamedTuple):
    """A notable record, by its 0-based index in the data set."""

    kind: str
    dataset: str
    record: int
    reason: str


def from_report(report: DataReport) -> Iterator[Notable]:
    """Records that the preparation has reported: unusable, truncated (most tokens first) and divided ones."""
    for dropped in report.unusable():
        yield Notable("dropped", dropped.dataset, dropped.index, dropped.reason)
    cuts = Counter[tuple[str, int]]()  # a record may give several examples
    for cut in report.truncated:
        cuts[cut.dataset, cut.index] += cut.cut
    for (dataset, index), tokens in cuts.most_common():
        yield Notable("cut", dataset, index, f"{with_unit(tokens, 'token')} cut")
    for divided in report.divided:
        yield Notable("divided", divided.dataset, divided.index, f"gives {with_unit(divided.parts, 'example')}")


def duplicates(
    names: list[tuple[str, int]], hashes: NDArray[np.int64], where: Callable[[int, str], str]
) -> Iterator[Notable]:
    """Find records that give an example with the same tokens and labels as an earlier one.

    Args:
        hashes: `[examples]`, int64, equal for equal tokens and labels.
        where: formats the place of a record, see `DataReport.where`.
    """
    order = np.argsort(hashes, kind="stable")
    starts = np.flatnonzero(np.r_[True, hashes[order][1:] != hashes[order][:-1]])
    ends = np.r_[starts[1:], len(order)]
    for start, end in zip(starts[ends - starts > 1].tolist(), ends[ends - starts > 1].tolist(), strict=True):
        group = order[start:end].tolist()
        records = list(dict.fromkeys(names[place] for place in group))
        for record in records[1:]:
            first = ", ".join(
                f"{dataset} {where(number, dataset)}"
                for dataset, number in records[:MAX_DUPLICATES_NAMED]
                if (dataset, number) != record
            )
            dataset, number = record
            yield Notable("doubled", dataset, number, f"the same prompt and answer as {first}")


def leaks(
    names: list[tuple[str, int]],
    hashes: NDArray[np.int64],
    held_names: list[tuple[str, int]],
    held_hashes: NDArray[np.int64],
    where: Callable[[int, str], str],
) -> Iterator[Notable]:
    """Find evaluation examples that also occur in the training data.

    Args:
        hashes: `[examples]`, int64, of the training examples, equal for equal tokens and labels.
        held_hashes: `[eval_examples]`, int64, the same of the evaluation examples.
        where: formats the place of a record, see `DataReport.where`.
    """
    trained: dict[int, tuple[str, int]] = {}
    for digest, name in zip(hashes.tolist(), names, strict=True):
        trained.setdefault(digest, name)
    for digest, name in zip(held_hashes.tolist(), held_names, strict=True):
        if digest in trained:
            dataset, number = trained[digest]
            yield Notable(
                "leaked",
                name[0],
                name[1],
                f"held out, but its duplicate {dataset} {where(number, dataset)} is in the training set",
            )


def longest(names: list[tuple[str, int]], whole: NDArray[np.int64]) -> Iterator[Notable]:
    """The `MAX_LONGEST` longest examples before truncation (`whole`: tokens, `[examples]`, int64)."""
    for place in np.argsort(-whole, kind="stable")[:MAX_LONGEST].tolist():
        dataset, number = names[place]
        yield Notable("longest", dataset, number, f"{with_unit(int(whole[place]), 'token')}")


def _is_unanswered(one: Notable) -> bool:
    return one.kind == "dropped" and one.reason.startswith(UNANSWERED)


def page(found: list[Notable], kind: str, offset: int, limit: int) -> dict[str, Any]:
    """Select a page of the records of a kind: one of `KINDS` or `EXTRA_KINDS`, or `all`.

    Returns:
        `total` (number of records of this kind), `kinds` (number of records of each kind) and `rows`, each a dictionary
        of the attributes of a `Notable`.
    """
    groups = {name: [one for one in found if one.kind == name] for name in (*KINDS, "longest")}
    groups["unanswered"] = [one for one in groups["dropped"] if _is_unanswered(one)]
    groups["all"] = [one for one in found if one.kind in KINDS]
    chosen, first = groups.get(kind, []), max(0, offset)
    return {
        "total": len(chosen),
        "kinds": {name: len(groups[name]) for name in (*KINDS, *EXTRA_KINDS)},
        "rows": [one._asdict() for one in chosen[first : first + max(0, limit)]],
    }
