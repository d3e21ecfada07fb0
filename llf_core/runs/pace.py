"""The newest step of a run, its speed, remaining time and last metrics, read at a few positions of its files."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from llf_core.runs.charts import EVAL_PREFIX, HIGH, KEY_METRICS, LOW, primary_metric
from llf_core.runs.checkpoints import Checkpoints
from llf_core.runs.jsonl import LARGEST_ATTEMPT, as_number, is_count, is_timestamp, parse
from llf_core.untrusted import open_file, read_end

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from llf_core.runs.folder import RunFolder
    from llf_core.runs.status import Status

RECENT = 50  # logged steps; older speeds say little about the next hour
MAX_BYTES = 64 * 1024  # bytes at the end of the metrics; a record has about 300
STEPPING_STATES = frozenset({"running", "stopping"})


class Pace(NamedTuple):
    """Newest step of a run, and its current seconds per step."""

    step: int
    per_step: float | None


def newest_step(status: Status, logged: Sequence[int] | NDArray[np.int64]) -> int:
    """The newest step of a run, from its status and the `[n]` logged steps of its attempt, ascending."""
    return max(status.step, int(logged[-1])) if status.state in STEPPING_STATES and len(logged) else status.step


def last_logged_step(folder: RunFolder, status: Status) -> int:
    """The last step of an attempt according to its status, metrics and checkpoints."""
    steps = [status.step, *Checkpoints(folder).list()[-1:]]
    try:
        records = [parse(line) for line in read_end(folder.metrics, MAX_BYTES).splitlines()]
    except OSError:  # missing or unreadable: checkpoints and status are used
        records = []
    own = (record.get("step") for record in records if record and record.get("attempt") == status.attempt)
    return max([*steps, *(step for step in own if isinstance(step, int) and is_count(step))])


def seconds_per_step(steps: Sequence[int], times: Sequence[float], fallback: float | None) -> float | None:
    """Current seconds per step, evaluations and checkpoints included; None if unknown.

    Args:
        steps: `[n]` logged steps of the current attempt, ascending; only the last 50 are used, a choice of this
            project.
        times: `[n]` their Unix times. Intervals in which the clock was set back do not count.
        fallback: the trainer's own `step_seconds`, for an attempt with fewer than two records.
    """
    steps, times = steps[-RECENT:], times[-RECENT:]
    made = took = 0.0
    for place in range(1, len(steps)):
        apart = float(times[place] - times[place - 1])
        if apart > 0:  # else the clock was set back
            took += apart
            made += int(steps[place]) - int(steps[place - 1])
    return took / made if made > 0 else fallback


def remaining(state: str, step: int, total: int, per_step: float | None) -> float | None:
    """Estimated seconds to the last planned step: `(total - step) * per_step`.

    None if the run is not training, its speed or number of steps is unknown, or all steps are done.
    """
    if state not in STEPPING_STATES or not 0 <= step < total or per_step is None:
        return None
    return (total - step) * per_step


def read_pace(folder: RunFolder, status: Status) -> Pace:
    """Newest step and speed of a run, from the end of its metrics; from its status if it is not training."""
    told = Pace(status.step, status.step_seconds)
    if status.state not in STEPPING_STATES:
        return told
    try:
        descriptor = open_file(folder.metrics)
    except OSError:
        return told
    try:
        logged = _recent(descriptor, status.attempt)
    finally:
        os.close(descriptor)
    steps = sorted(logged)
    per_step = seconds_per_step(steps, [logged[step] for step in steps], status.step_seconds)
    return Pace(newest_step(status, steps), per_step)


def _recent(descriptor: int, attempt: int) -> dict[int, float]:
    """Time by step for the last records of an attempt; the last record of a step wins."""
    found: dict[int, float] = {}
    for record in read_backwards(descriptor):
        step, moment = record.get("step"), record.get("time")
        if record.get("attempt", 1) != attempt or len(found) > RECENT:
            break
        if isinstance(step, int) and is_count(step) and isinstance(moment, int | float) and is_timestamp(moment):
            found.setdefault(step, float(moment))
    return found


CHUNK = 64 * 1024  # bytes read at a time; a record has about 300
MAX_RECORD_BYTES = 1024 * 1024  # maximum bytes of a record
MAX_SEARCH_BYTES = 8 * 1024 * 1024  # bytes from the end searched for rarely logged metrics
POINTS = 20
BLOCK = 4096  # bytes per read; a record has about 300, up to 1,500 for stages with many metrics
WHOLE = POINTS * BLOCK


def latest_values(descriptor: int, names: Iterable[str] = ()) -> dict[str, float]:
    """The last logged value of each metric in the last 64 KiB; of evaluation metrics and `names`, in the last 8 MiB.

    As in `Columns`, values of an earlier attempt beyond the step from which a later one resumed do not count.
    """
    found: dict[str, float] = {}
    keys = {name: f'"{name}":'.encode() for name in names}

    def wanted() -> list[bytes]:
        held_out = [] if any(name.startswith(EVAL_PREFIX) for name in found) else [f'"{EVAL_PREFIX}'.encode()]
        return [key for name, key in keys.items() if name not in found] + held_out

    starts = AttemptStarts()
    for record in read_backwards(descriptor, wanted):
        for name, value in _counted_values(record, starts).items():
            number = as_number(value)
            if number is not None:
                found.setdefault(name, number)
    return found


def last_loss(folder: RunFolder) -> float | None:
    """The last logged loss of a run in the last 8 MiB of its metrics."""
    try:
        descriptor = open_file(folder.metrics)
    except OSError:
        return None
    try:
        starts = AttemptStarts()
        for record in read_backwards(descriptor, lambda: [b'"loss":']):
            number = as_number(_counted_values(record, starts).get("loss"))
            if number is not None:
                return number
    finally:
        os.close(descriptor)
    return None


def last_evaluation(folder: RunFolder) -> dict[str, float]:
    """The last evaluation of a run in the last 8 MiB of its metrics, by name, without the bounds of intervals."""
    try:
        descriptor = open_file(folder.metrics)
    except OSError:
        return {}
    try:
        starts = AttemptStarts()
        for record in read_backwards(descriptor, lambda: [f'"{EVAL_PREFIX}'.encode()]):
            found = evaluated(_counted_values(record, starts))
            if found:
                return found
    finally:
        os.close(descriptor)
    return {}


def evaluated(values: Mapping[str, object]) -> dict[str, float]:
    """The evaluation metrics among logged values, without the bounds of their intervals."""
    found = {name: as_number(value) for name, value in values.items() if name.startswith(EVAL_PREFIX)}
    return {name: number for name, number in found.items() if number is not None and not name.endswith((LOW, HIGH))}


class AttemptStarts:
    """First steps of the attempts seen so far, newest first."""

    def __init__(self) -> None:
        self._first: dict[int, int] = {}

    def is_current(self, step: int, attempt: int) -> bool:
        """Process a record, reading backwards. Returns False if a later attempt has repeated its step."""
        self._first[attempt] = min(step, self._first.get(attempt, step))
        return not any(first < step for other, first in self._first.items() if other > attempt)


def _counted_values(record: Mapping[str, Any], starts: AttemptStarts) -> dict[str, Any]:
    """The values of the next record from the end, if `Columns` counts it too; else none."""
    values, step, attempt = record.get("values"), record.get("step"), record.get("attempt", 1)
    if not isinstance(values, dict) or not isinstance(step, int) or not is_count(step):
        return {}
    known = isinstance(attempt, int) and is_count(attempt) and attempt < LARGEST_ATTEMPT
    return values if starts.is_current(step, attempt if known else 1) else {}


def read_backwards(descriptor: int, wanted: Callable[[], list[bytes]] | None = None) -> Iterator[dict[str, Any]]:
    """Iterate over the valid records of a JSON Lines file from the end, for at most `MAX_SEARCH_BYTES`.

    Args:
        wanted: called before each chunk of 64 KiB but the last of the file, returns byte strings to search for in it.
            Iteration ends if it returns an empty list. A chunk without any of them yields only its first record, which
            shows its attempt, or all records if the attempt differs from the last record's. None to yield all records.
    """
    end = size = os.fstat(descriptor).st_size
    rest = b""  # the end of a line that starts in the previous chunk
    attempt: object = None
    while end > max(0, size - MAX_SEARCH_BYTES):
        start = max(0, end - CHUNK)
        data = os.pread(descriptor, end - start, start) + rest
        end = start
        cut = 0 if start == 0 else data.find(b"\n") + 1
        if start and not cut:  # a line longer than the limit
            if len(data) > MAX_RECORD_BYTES:
                return
            rest = data
            continue
        rest, lines = data[:cut], data[cut:]
        keys = wanted() if wanted is not None and attempt is not None else None
        if keys == []:
            return
        if keys and not any(key in lines for key in keys):
            first = parse(lines[: lines.find(b"\n") + 1])
            if (first or {}).get("attempt", 1) == attempt:
                if first is not None:
                    yield first
                continue
        for line in reversed(lines.splitlines()):
            record = parse(line)
            if record is not None:
                attempt = record.get("attempt", 1)
                yield record


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
