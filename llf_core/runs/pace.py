"""How long a step takes, and how long a run still needs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from llf_core.door import open_file
from llf_core.runs.latest_metrics import backwards

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.runs.folder import RunFolder
    from llf_core.runs.status import Status

RECENT = 50  # logged steps: old speeds say little about the next hour
GOING = frozenset({"running", "stopping"})


def seconds_per_step(steps: Sequence[int], times: Sequence[float], fallback: float | None) -> float | None:
    """Seconds a step takes now, evaluations and checkpoints included.

    Args:
        steps: `[n]` logged steps of the current attempt, rising; only the last 50 count.
        times: `[n]` their Unix times.
        fallback: the trainer's own `step_seconds`, for an attempt that has not logged twice yet.

    Returns:
        Seconds a step, or None where nothing is known. Elapsed time over the step number would be wrong after a
        resume, since the steps of earlier attempts took no time in this one.
    """
    steps, times = steps[-RECENT:], times[-RECENT:]
    made = took = 0.0
    for place in range(1, len(steps)):
        apart = float(times[place] - times[place - 1])
        if apart > 0:  # else the clock was set back in between
            took += apart
            made += int(steps[place]) - int(steps[place - 1])
    return took / made if made > 0 else fallback


def remaining(state: str, step: int, total: int, per_step: float | None) -> float | None:
    """Seconds to the last planned step of a run that makes steps; None where they can't be estimated."""
    if state not in GOING or total <= 0 or per_step is None:
        return None
    return max(0, total - step) * per_step


def pace(folder: RunFolder, status: Status) -> float | None:
    """Seconds a step of a run takes now, read from the end of its metrics; None where nothing is known.

    Args:
        folder: the run.
        status: as shown.
    """
    if status.state not in GOING:
        return status.step_seconds
    try:
        descriptor = open_file(folder.metrics)
    except OSError:
        return status.step_seconds
    try:
        logged = _recent(descriptor, status.attempt)
    finally:
        os.close(descriptor)
    steps = sorted(logged)
    return seconds_per_step(steps, [logged[step] for step in steps], status.step_seconds)


def _recent(descriptor: int, attempt: int) -> dict[int, float]:
    """Step and time of the last records of an attempt; of several records of a step the last one's."""
    found: dict[int, float] = {}
    for record in backwards(descriptor):
        step, moment = record.get("step"), record.get("time")
        if record.get("attempt", 1) != attempt or len(found) > RECENT:
            break
        if isinstance(step, int) and isinstance(moment, int | float):
            found.setdefault(step, float(moment))
    return found
