"""Smoothing of curves with a trailing mean, so that past points never change."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Places = NDArray[np.intp]

MIN_WINDOW_VALUES = 10  # minimum number of logged values in an automatic window
MAX_WINDOWS = 30  # maximum number of windows in a run
MAX_DIRECT_VALUES = 16  # up to this many values per window, sums are computed directly for all windows at once


def automatic_window(total: int, gap: float) -> int:
    """The default smoothing window in steps: 1/30 of the run, at least ten logged values.

    It is rounded up to 1, 2 or 5 times a power of ten. It depends only on values known when the run starts, so the
    curve does not change while the run grows. Both numbers are choices of this project: a mean of ten independent
    values has a third of their standard deviation, and thirty windows still show the shape of a run.

    Args:
        total: planned steps; 0 if unknown.
        gap: steps between logged values.
    """
    least = max(total / MAX_WINDOWS, MIN_WINDOW_VALUES * max(gap, 1.0))
    power = 10 ** math.floor(math.log10(least))
    return int(next(size * power for size in (1, 2, 5, 10) if size * power >= least))


def label(window: int) -> str:
    """Label of a smoothed value: `smoothed over 10 steps`; a window of 0 is `not smoothed`."""
    if not window:
        return "not smoothed"
    return f"smoothed over {window:,} {'step' if window == 1 else 'steps'}"


def smooth(steps: ArrayLike, values: ArrayLike, window: float) -> Floats:
    """Average each value with those before it whose step is in `(step - window, step]`.

    There is no padding at the start and thus no bias to correct: the first smoothed value is the first value. Takes
    O(n) additions and never subtracts sums, so a large value leaves no rounding error in later windows: sums run
    forwards and backwards within blocks, as van Herk (Pattern Recognition Letters 13(7), 1992) does for minima and
    maxima.

    Args:
        steps: `[n]` steps, ascending.
        values: `[n]` values; non-finite ones are unchanged and excluded from all means.
        window: window in steps, greater than 0.

    Returns:
        `[n]` float64. `smooth(steps[:k], values[:k], window)` equals the first k of `smooth(steps, values, window)`, up
        to rounding.
    """
    if not window > 0:
        raise ValueError(f"window is {window}. Expected an integer above 0.")
    out = np.array(values, np.float64)
    known = np.flatnonzero(np.isfinite(out))
    if known.size:
        at = np.asarray(steps, np.float64)[known]
        begins = np.searchsorted(at, at - window, side="right")
        counts = np.arange(1, at.size + 1) - begins
        given = out[known]
        sums = (
            _one_by_one(given, counts) if counts.max() <= MAX_DIRECT_VALUES else _in_blocks(given, at, begins, window)
        )
        out[known] = sums / counts
    return out


def _one_by_one(values: Floats, counts: Places) -> Floats:
    """Sum of the last `counts[i]` values up to each index i, `[n]`."""
    sums = values.copy()
    for back in range(1, int(counts.max())):
        inside = np.flatnonzero(counts > back)
        sums[inside] += values[inside - back]
    return sums


def _in_blocks(values: Floats, at: Floats, begins: Places, window: float) -> Floats:
    """Sum of `values[begins[i] : i + 1]` for each i, `[n]`, computed in blocks of the window's length.

    A window consists of the start of its own block and the end of at most the previous one: two running sums.
    """
    block = np.floor((at - at[0]) / window)
    edges = np.flatnonzero(np.diff(block, prepend=-1.0, append=np.inf))
    forward, backward = np.empty_like(values), np.empty_like(values)
    for start, end in pairwise(edges.tolist()):
        np.cumsum(values[start:end], out=forward[start:end])
        backward[start:end] = np.cumsum(values[start:end][::-1])[::-1]
    first = edges[np.searchsorted(edges, np.arange(values.size), side="right") - 1]  # within the same block
    before = begins < first
    forward[before] += backward[begins[before]]
    return forward
