"""The last numbers of a run, read from the end of its metrics, however long the file is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from llf_core.door import open_file
from llf_core.runs.jsonl import as_number, parse
from llf_core.runs.metric_catalog import HELD_OUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from llf_core.runs.folder import RunFolder

CHUNK = 64 * 1024  # bytes that are read at a time; a record has about 300
LONGEST = 1024 * 1024  # bytes of a record; what is longer is none
FARTHEST = 8 * 1024 * 1024  # bytes from the end that are searched for a number that is logged now and then


def latest(descriptor: int, names: Iterable[str] = ()) -> dict[str, float]:
    """The last logged value of each name; NaN and infinities are values too.

    As in `Columns`, what an earlier attempt logged beyond the step at which a later one went on does not count.

    Args:
        descriptor: the metrics, opened.
        names: numbers that are searched for where the last 64 kB don't have them, besides those of held-out examples.

    Returns:
        By name, as logged: all that stand in the last 64 kB, and of `names` those that were found before.
    """
    found: dict[str, float] = {}
    keys = {name: f'"{name}":'.encode() for name in names}

    def wanted() -> list[bytes]:
        held_out = [] if any(name.startswith(HELD_OUT) for name in found) else [f'"{HELD_OUT}'.encode()]
        return [key for name, key in keys.items() if name not in found] + held_out

    starts = Starts()
    for record in backwards(descriptor, wanted):
        values = record.get("values")
        step, attempt = record.get("step"), record.get("attempt", 1)
        if not isinstance(values, dict) or not isinstance(step, int) or not isinstance(attempt, int):
            continue
        if starts.holds(step, attempt):
            for name, value in values.items():
                number = as_number(value)
                if number is not None:
                    found.setdefault(name, number)
    return found


def last_loss(folder: RunFolder) -> float | None:
    """The last logged loss of a run, as `latest` finds it; None where there is none, or the file cannot be read."""
    try:
        descriptor = open_file(folder.metrics)
    except OSError:
        return None
    try:
        starts = Starts()
        for record in backwards(descriptor, lambda: [b'"loss":']):
            values, step, attempt = record.get("values"), record.get("step"), record.get("attempt", 1)
            if isinstance(values, dict) and isinstance(step, int) and isinstance(attempt, int):
                number = as_number(values.get("loss")) if starts.holds(step, attempt) else None
                if number is not None:
                    return number
    finally:
        os.close(descriptor)
    return None


class Starts:
    """Where attempts began, as far as their records were seen, the newest first."""

    def __init__(self) -> None:
        self._first: dict[int, int] = {}

    def holds(self, step: int, attempt: int) -> bool:
        """Takes note of a record; false where a later attempt made the steps from before it again."""
        self._first[attempt] = min(step, self._first.get(attempt, step))
        return not any(first < step for other, first in self._first.items() if other > attempt)


def backwards(descriptor: int, wanted: Callable[[], list[bytes]] | None = None) -> Iterator[dict[str, Any]]:
    """The records of a file of JSON lines, the last one first; lines that are none are passed over.

    Args:
        descriptor: the file, opened.
        wanted: asked after the last 64 kB, what to search for in those before: where it wants nothing more this ends,
            and of 64 kB without any of it only the first record comes, so that its attempt is known; all of them
            where that is another attempt than the last record's.
    """
    end = size = os.fstat(descriptor).st_size
    rest = b""  # the end of a line that begins in the chunk before
    attempt: Any = None
    while end > max(0, size - FARTHEST):
        start = max(0, end - CHUNK)
        data = os.pread(descriptor, end - start, start) + rest
        end = start
        cut = 0 if start == 0 else data.find(b"\n") + 1
        if start and not cut:  # one line that is longer than all of this
            if len(data) > LONGEST:
                return
            rest = data
            continue
        rest, lines = data[:cut], data[cut:]
        keys = wanted() if wanted is not None and attempt is not None else None
        if keys == []:
            return
        if keys and not any(key in lines for key in keys):
            first = parse(lines[: lines.find(b"\n") + 1]) or {}
            if first.get("attempt", 1) == attempt:
                yield first
                continue
        for line in reversed(lines.splitlines()):
            record = parse(line)
            if record is not None:
                attempt = record.get("attempt", 1)
                yield record
