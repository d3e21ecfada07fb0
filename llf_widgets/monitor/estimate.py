"""How long a run has trained and how long it still needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

RECENT = 50  # records: old speeds say little about the next hour


def seconds_per_step(steps: np.ndarray, times: np.ndarray, fallback: float | None) -> float | None:
    """Seconds a step takes now, evaluations and checkpoints included.

    Args:
        steps: [n] logged steps of the current attempt, ascending.
        times: [n] their Unix times.
        fallback: the trainer's own `step_seconds`, for an attempt that has not logged twice yet.

    Returns:
        Seconds a step, or None where nothing is known. Elapsed time over the step number would be wrong after a
        resume, since the steps of earlier attempts took no time in this one.
    """
    made, took = np.diff(steps[-RECENT:]), np.diff(times[-RECENT:])
    forward = took > 0  # else the clock was set back in between
    if took[forward].size and made[forward].sum() > 0:
        return float(took[forward].sum() / made[forward].sum())
    return fallback


def trained_seconds(moments: Iterable[tuple[int, float]], attempt: int, until: float | None) -> float:
    """Seconds a run has worked, pauses between attempts left out.

    Args:
        moments: (attempt, Unix time) of everything that the run wrote.
        attempt: the current attempt.
        until: now for a live run; None for one that has ended, which counts up to its last sign.
    """
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    for number, moment in moments:
        first[number] = min(first.get(number, moment), moment)
        last[number] = max(last.get(number, moment), moment)
    if until is not None and attempt in first:
        last[attempt] = max(last[attempt], until)
    return sum(last[number] - first[number] for number in first)
