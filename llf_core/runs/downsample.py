"""Downsampling of curves that keeps gaps, minima and maxima."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

MAX_POINTS = 2000
"""Points of a drawn curve; chosen by hand, above the pixels of a chart's width."""


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
