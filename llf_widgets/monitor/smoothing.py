"""Time-weighted, debiased exponential smoothing that never changes what it has already drawn."""

from __future__ import annotations

import numpy as np

REACH = 30.0  # exp(30) keeps 13 digits of a double's 16 within one block


def window(total: int, gap: float) -> float:
    """The smoothing length in steps: a sixtieth of the planned run, and at least five logged steps.

    Both are known when a run starts, so the curve keeps its shape while the run grows.

    Args:
        total: planned steps; 0 where unknown.
        gap: steps from one logged value to the next.
    """
    return max(total / 60.0, 5.0 * max(gap, 1e-9))


def smooth(steps: np.ndarray, values: np.ndarray, length: float) -> np.ndarray:
    """Averages every value with all earlier ones, weighted by exp(-distance in steps / length).

    Dividing by the sum of the weights debiases the start (the first smoothed value is the first value), and
    measuring the distance in steps gives unevenly logged values their due.

    Args:
        steps: [n] steps, ascending.
        values: [n] values; one that is not finite stays as it is and is left out of all averages.
        length: smoothing length in steps, above 0.

    Returns:
        [n] float64. `smooth(steps[:k], values[:k], length)` equals the first k of `smooth(steps, values, length)`.
    """
    at = np.asarray(steps, dtype=np.float64)
    given = np.asarray(values, dtype=np.float64)
    out = given.copy()
    known = np.flatnonzero(np.isfinite(given))
    if known.size == 0:
        return out
    at, given = at[known] / length, given[known]
    result = np.empty_like(given)
    total = weight = 0.0  # sums up to the value before the block, as seen from `edge`
    edge = at[0]
    start = 0
    while start < at.size:
        end = max(start + 1, int(np.searchsorted(at, at[start] + REACH, side="right")))
        faded = np.exp(edge - at[start])
        growth = np.exp(at[start:end] - at[start])
        sums = total * faded + np.cumsum(growth * given[start:end])
        weights = weight * faded + np.cumsum(growth)
        result[start:end] = sums / weights
        total, weight, edge = sums[-1] / growth[-1], weights[-1] / growth[-1], at[end - 1]
        start = end
    out[known] = result
    return out
