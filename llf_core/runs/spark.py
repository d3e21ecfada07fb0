"""The shape of a run's loss for a list: a few points of a long file, read at a few places."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llf_core.runs.jsonl import as_number, parse

if TYPE_CHECKING:
    from llf_core.runs.folder import RunFolder

POINTS = 20
BLOCK = 2048  # bytes at each place; a record has about 300
WHOLE = POINTS * BLOCK


def spark(folder: RunFolder) -> tuple[float, ...]:
    """At most `POINTS` losses of a run from its first to its last, evenly spread over its metrics.

    It costs as many small reads, however long the file is. Of steps that were made twice both may be among them.
    """
    try:
        return _spark(os.open(folder.metrics, os.O_RDONLY))
    except OSError:  # no metrics yet, or none that may be read: the run is listed without
        return ()


def _spark(descriptor: int) -> tuple[float, ...]:
    try:
        size = os.fstat(descriptor).st_size
        if size <= WHOLE:
            losses = _losses(os.pread(descriptor, size, 0))
            step = max(1, -(-len(losses) // POINTS))
            # The last one is what is shown as a number beside it.
            return tuple(losses[-1::-step][::-1])
        places = [round(number * (size - BLOCK) / (POINTS - 1)) for number in range(POINTS)]
        found = [_losses(os.pread(descriptor, BLOCK, place), cut=place > 0)[-1:] for place in places]
    finally:
        os.close(descriptor)
    return tuple(loss for one in found for loss in one)


def _losses(data: bytes, *, cut: bool = False) -> list[float]:
    """The losses of whole lines, in order; where the first line may be cut, it is left out."""
    lines = data.split(b"\n")[1 if cut else 0 :]
    found = []
    for line in lines:
        if b'"loss":' not in line:
            continue
        record = parse(line)
        values = record.get("values") if record is not None else None
        loss = as_number(values.get("loss")) if isinstance(values, dict) else None
        if loss is not None and abs(loss) != float("inf") and loss == loss:  # noqa: PLR0124 - NaN
            found.append(loss)
    return found
