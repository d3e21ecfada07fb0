"""Smoothing of a curve: the mean over the steps just before, which never changes what it has already drawn."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Places = NDArray[np.intp]

LOGGED = 10  # logged steps that an automatic window holds at least
SHARE = 30  # windows in a run, at most
FEW = 16  # values a window up to which they are added one by one, all windows at once


def automatic_window(total: int, gap: float) -> int:
    """The window in steps where the reader has chosen none: a thirtieth of the run, at least ten logged steps.

    It is rounded up to 1, 2 or 5 times a power of ten. What it follows from is known when a run starts, so the curve
    keeps its shape while the run grows.

    Args:
        total: planned steps; 0 where unknown.
        gap: steps from one logged value to the next.
    """
    least = max(total / SHARE, LOGGED * max(gap, 1.0))
    power = 10 ** math.floor(math.log10(least))
    return int(next(size * power for size in (1, 2, 5, 10) if size * power >= least))


def label(window: int) -> str:
    """How a value that was smoothed over so many steps is labelled: `smoothed over 10 steps`."""
    if not window:
        return "not smoothed"
    return f"smoothed over {window:,} {'step' if window == 1 else 'steps'}"


def smooth(steps: ArrayLike, values: ArrayLike, window: float) -> Floats:
    """Averages each value with those before it whose step is in `(step - window, step]`.

    Nothing is added at the start, so there is no bias to take away: the first smoothed value is the first value. Takes
    O(n) additions and never subtracts a sum from a sum, so a large value leaves no rounding error in later windows.

    Args:
        steps: `[n]` steps, rising.
        values: `[n]` values; one that is not finite stays as it is and is left out of all means.
        window: steps, above 0.

    Returns:
        `[n]` float64. `smooth(steps[:k], values[:k], window)` equals the first k of `smooth(steps, values, window)`.

    Raises:
        ValueError: `window` is not above 0.
    """
    if not window > 0:
        raise ValueError(f"window is {window}. Expected a number of steps above 0.")
    out = np.array(values, np.float64)
    known = np.flatnonzero(np.isfinite(out))
    if known.size:
        at = np.asarray(steps, np.float64)[known]
        begins = np.searchsorted(at, at - window, side="right")
        counts = np.arange(1, at.size + 1) - begins
        given = out[known]
        sums = _one_by_one(given, counts) if counts.max() <= FEW else _in_blocks(given, at, begins, window)
        out[known] = sums / counts
    return out


def _one_by_one(values: Floats, counts: Places) -> Floats:
    """The sum of the last `counts[i]` values up to each."""
    sums = values.copy()
    for back in range(1, int(counts.max())):
        inside = np.flatnonzero(counts > back)
        sums[inside] += values[inside - back]
    return sums


def _in_blocks(values: Floats, at: Floats, begins: Places, window: float) -> Floats:
    """The sum of `values[begins[i] : i + 1]` for each i, of blocks as long as the window.

    A window holds the beginning of its own block and the end of at most the block before: two running sums.
    """
    block = np.floor((at - at[0]) / window)
    edges = np.flatnonzero(np.diff(block, prepend=-1.0, append=np.inf))
    forward, backward = np.empty_like(values), np.empty_like(values)
    for start, end in pairwise(edges.tolist()):
        np.cumsum(values[start:end], out=forward[start:end])
        backward[start:end] = np.cumsum(values[start:end][::-1])[::-1]
    first = edges[np.searchsorted(edges, np.arange(values.size), side="right") - 1]  # of the own block
    before = begins < first
    forward[before] += backward[begins[before]]
    return forward
