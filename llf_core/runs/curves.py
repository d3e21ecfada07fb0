"""Curves: smoothing with a trailing mean, which never changes past points, and downsampling for drawing.

Summary numbers of a run, computed once here so that all views show the same values.

`last` is always the last logged value, never a smoothed one. Lists, which do not read whole runs, take the last values
from `runs.latest_metrics`, which agrees with this module, and the remaining time from `runs.pace`.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.runs.charts import NOTHING_DECLARED, higher_is_better, logged_charts, primary_metric

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

    Floats = NDArray[np.float64]
    Places = NDArray[np.intp]
    Line = tuple[NDArray[np.int64], NDArray[np.float64]]
    Series = Mapping[str, Line]  # name -> (steps [n], values [n]), as logged, not downsampled

MIN_WINDOW_VALUES = 10  # minimum number of logged values in an automatic window
MAX_WINDOWS = 30  # maximum number of windows in a run
MAX_DIRECT_VALUES = 16  # up to this many values per window, sums are computed directly for all windows at once

MAX_POINTS = 2000
"""Points of a drawn curve; chosen by hand, above the pixels of a chart's width."""


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


def decimate(x: ArrayLike, y: ArrayLike, n: int = MAX_POINTS) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Select points such that the plotted curve looks the same (min-max downsampling).

    The series is divided into buckets of equal size; the minimum and maximum of each bucket are kept (by
    `MinMaxDownsampler` of tsdownsample), and so are the first and last point. Values that are not finite are gaps: the
    first and last point of each gap are kept and break the line. If gaps would take more than half of the points, one
    gap point per bucket is kept.

    Args:
        x: `[count]`, ascending.
        y: `[count]`.
        n: maximum number of points, at least 8.

    Returns:
        The selected x and y, `[points]` each, in order; copies of the input if it is short enough.

    Raises:
        ValueError: the shapes differ, or `n` is less than 8.
    """
    xs, ys = np.asarray(x), np.asarray(y, np.float64)
    if xs.shape != ys.shape or xs.ndim != 1:
        raise ValueError(f"x has shape {xs.shape} and y {ys.shape}. Expected two arrays of equal length.")
    if n < 8:  # noqa: PLR2004 - the least that holds two ends, a gap's two ends and four extremes
        raise ValueError(f"n is {n}. Expected at least 8.")
    if len(ys) <= n:
        return xs.copy(), ys.copy()
    finite = np.isfinite(ys)
    gaps = _gap_points(finite, n // 2)
    ends = [0, len(ys) - 1]
    rest = n - len(gaps) - len(ends)
    chosen = np.unique(np.concatenate([ends, gaps, _extremes(ys, np.flatnonzero(finite), rest)]))
    return xs[chosen], ys[chosen]


def _gap_points(finite: NDArray[np.bool_], most: int) -> NDArray[np.intp]:
    """First and last index of each gap; if these are too many, one in each of `most` buckets."""
    missing = np.flatnonzero(~finite)
    if not len(missing):
        return missing
    breaks = np.flatnonzero(np.diff(missing) > 1)
    points = np.unique(np.concatenate([missing[[0, -1]], missing[breaks], missing[breaks + 1]]))
    if len(points) <= most:
        return points
    stretch = missing * most // len(finite)
    _, first = np.unique(stretch, return_index=True)
    return missing[first]


def _extremes(ys: NDArray[np.float64], where: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """Indices of the minimum and maximum of each bucket of finite values, at most `most` in total."""
    most -= most % 2
    if len(where) <= most:
        return where
    from tsdownsample import MinMaxDownsampler

    picked = MinMaxDownsampler().downsample(np.ascontiguousarray(ys[where]), n_out=most)
    chosen: NDArray[np.intp] = where[picked.astype(np.intp)]
    return chosen


NOTHING: Line = (np.empty(0, np.int64), np.empty(0))


def line(series: Series, name: str) -> Line:
    """Steps `[n]`, int64, and values `[n]`, float64, of a metric; empty arrays if nothing was logged."""
    return series.get(name, NOTHING)


def last(series: Series, name: str) -> float | None:
    """The last logged value of a metric, NaN and infinities included; None if there is none."""
    _, values = line(series, name)
    return float(values[-1]) if values.size else None


def first(series: Series, name: str) -> float | None:
    """The first logged value of a metric; None if there is none."""
    _, values = line(series, name)
    return float(values[0]) if values.size else None


def best(series: Series, name: str, declared: Mapping[str, bool] = NOTHING_DECLARED) -> tuple[int, float] | None:
    """Step and value of a metric's best value, else of its last one if no direction is declared, among finite values.

    Args:
        declared: directions declared by the run, see `metric_catalog.declared_directions`.
    """
    steps, values = line(series, name)
    good = np.flatnonzero(np.isfinite(values))
    if not good.size:
        return None
    places = {True: np.argmax, False: np.argmin}
    better = higher_is_better(name, declared)
    place = good[-1] if better is None else good[places[better](values[good])]
    return int(steps[place]), float(values[place])


def median(series: Series, name: str) -> float | None:
    """Median of the finite values of a metric; None if there are none."""
    _, values = line(series, name)
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else None


def highest(series: Series, name: str) -> float | None:
    """Highest finite value of a metric; None if there is none."""
    _, values = line(series, name)
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else None


def window_of(series: Series, total: int) -> int:
    """Default smoothing window of a run, in steps, from its planned steps and the interval of the primary metric."""
    steps, _ = line(series, primary_metric(series))
    return automatic_window(total, float(steps[1] - steps[0]) if steps.size > 1 else 1.0)


def smoothed(series: Series, window: int) -> dict[str, NDArray[np.float64]]:
    """Smoothed values `[n]` of each training metric with a chart at the top or in the middle; 0 is no smoothing."""
    names = {name for one in logged_charts(series) for name in one.lines} & series.keys()
    return {name: smooth(*series[name], window) if window else series[name][1] for name in names}


def last_finite(values: NDArray[np.float64]) -> float | None:
    """The last finite value of `[n]` smoothed values; None if there is none."""
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if finite.size else None
