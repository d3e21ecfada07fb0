"""The shape of a run for a list: a few points of a long file, read at a few places."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llf_core.door import open_file
from llf_core.runs.jsonl import as_number, parse
from llf_core.runs.latest_metrics import latest
from llf_core.runs.metric_catalog import BETTER, COUNTED, lead

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.runs.folder import RunFolder

POINTS = 20
BLOCK = 4096  # bytes at each place; a record has about 300, and up to 1,500 where a stage tells much
WHOLE = POINTS * BLOCK


@dataclass(frozen=True)
class Shape:
    """How a run went, in a few numbers.

    Attributes:
        points: at most `POINTS` values of the number to look at first, from the first to the last.
        last: the last logged value of each number that counts, by name; one may be NaN.
    """

    points: tuple[float, ...] = ()
    last: Mapping[str, float] = field(default_factory=dict)


def shape(folder: RunFolder) -> Shape:
    """A run's shape, evenly spread over its metrics.

    It costs as many small reads as it has points, however long the file is. Of steps that were made twice both may be
    among them.
    """
    try:
        return _shape(open_file(folder.metrics))
    except OSError:  # no metrics yet, or none that may be read: the run is listed without
        return Shape()


def _shape(descriptor: int) -> Shape:
    try:
        size = os.fstat(descriptor).st_size
        if size <= WHOLE:
            blocks = [[one] for one in _records(os.pread(descriptor, size, 0))]
        else:
            places = [round(number * (size - BLOCK) / (POINTS - 1)) for number in range(POINTS)]
            blocks = [_records(os.pread(descriptor, BLOCK, place), cut=place > 0) for place in places]
        # Some numbers stand in few records, as a reward that is known once a phase.
        logged = {name for block in blocks for one in block for name in one}
        last = latest(descriptor, logged.intersection({*COUNTED, *BETTER}))
    finally:
        os.close(descriptor)
    first = lead(logged)
    points = [value for block in blocks if (value := _last(block, first)) is not None]
    if points and math.isfinite(last.get(first, math.nan)):  # it is what is shown as a number beside it
        points[-1] = last[first]
    step = max(1, -(-len(points) // POINTS))
    return Shape(tuple(points[-1::-step][::-1]), last)


def _last(block: list[dict[str, Any]], name: str) -> float | None:
    found = (as_number(one[name]) for one in reversed(block) if name in one)
    return next((one for one in found if one is not None and math.isfinite(one)), None)


def _records(data: bytes, *, cut: bool = False) -> list[dict[str, Any]]:
    """What whole lines of the training say, in order; where the first line may be cut, it is left out."""
    lines = data.split(b"\n")[1 if cut else 0 :]
    found = []
    for line in lines:
        if b'"loss":' not in line:
            continue
        record = parse(line)
        values = record.get("values") if record is not None else None
        if isinstance(values, dict):
            found.append(values)
    return found
