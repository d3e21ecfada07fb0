"""Sparkline of a run: a few points of its metrics, read at a few file positions."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llf_core.runs.jsonl import as_number, parse
from llf_core.runs.latest_metrics import latest_values
from llf_core.runs.metric_catalog import KEY_METRICS, primary_metric
from llf_core.untrusted import open_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.runs.folder import RunFolder

POINTS = 20
BLOCK = 4096  # bytes per read; a record has about 300, up to 1,500 for stages with many metrics
WHOLE = POINTS * BLOCK


@dataclass(frozen=True)
class CurveSummary:
    """At most `POINTS` finite values of a run's primary metric, and the last value of each metric, maybe NaN."""

    points: tuple[float, ...] = ()
    last: Mapping[str, float] = field(default_factory=dict)


def curve_summary(folder: RunFolder) -> CurveSummary:
    """Sample a run's primary metric evenly over its metrics file; empty if that cannot be read.

    Takes one small read per point and reads the end of the file, however long it is.
    """
    try:
        return _shape(open_file(folder.metrics))
    except OSError:  # missing or unreadable metrics: listed without a curve
        return CurveSummary()


def _shape(descriptor: int) -> CurveSummary:
    try:
        size = os.fstat(descriptor).st_size
        if size <= WHOLE:
            blocks = [[one] for one in _records(os.pread(descriptor, size, 0))]
        else:
            places = [round(number * (size - BLOCK) / (POINTS - 1)) for number in range(POINTS)]
            blocks = [_records(os.pread(descriptor, BLOCK, place), cut=place > 0) for place in places]
        # Some metrics occur in few records, such as a reward logged once per phase.
        logged = {name for block in blocks for one in block for name in one}
        last = latest_values(descriptor, logged.intersection({*KEY_METRICS, "loss"}))
    finally:
        os.close(descriptor)
    first = primary_metric(logged)
    points = [value for block in blocks if (value := _last(block, first)) is not None]
    if points and math.isfinite(last.get(first, math.nan)):  # the number displayed next to the curve
        points[-1] = last[first]
    step = max(1, -(-len(points) // POINTS))
    return CurveSummary(tuple(points[-1::-step][::-1]), last)


def _last(block: list[dict[str, object]], name: str) -> float | None:
    found = (as_number(one[name]) for one in reversed(block) if name in one)
    return next((one for one in found if one is not None and math.isfinite(one)), None)


def _records(data: bytes, *, cut: bool = False) -> list[dict[str, object]]:
    """Training records on complete lines, in order; the first line is skipped if it may be incomplete."""
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
