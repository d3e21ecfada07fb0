"""The newest step of a run, its speed and its remaining time; the status is some seconds behind the metrics."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from llf_core.runs.checkpoints import Checkpoints
from llf_core.runs.event_fields import is_count, is_timestamp
from llf_core.runs.jsonl import parse
from llf_core.runs.latest_metrics import read_backwards
from llf_core.untrusted import open_file, read_end

if TYPE_CHECKING:
    from collections.abc import Sequence

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
