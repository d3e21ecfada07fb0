"""At most so many points of a curve, with every gap, minimum and maximum."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

MOST_POINTS = 2000


def decimate(x: ArrayLike, y: ArrayLike, n: int = MOST_POINTS) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Picks points so that the drawn curve looks the same.

    In each stretch of equally many points the lowest and the highest stay, and so do the first and the last
    point of all. Values that are not finite are gaps: the first and the last of each run of them stay, and
    break the line that is drawn. Where there are so many gaps that they would fill half of the points, each
    stretch of the curve that holds one keeps one.

    Args:
        x: `[count]`, rising.
        y: `[count]`.
        n: the most points, at least 8.

    Returns:
        The chosen x and y, in order; copies of the whole where it is short enough.

    Raises:
        ValueError: the lengths differ or `n` is under 8.
    """
    xs, ys = np.asarray(x), np.asarray(y, np.float64)
    if xs.shape != ys.shape or xs.ndim != 1:
        raise ValueError(f"x has shape {xs.shape} and y {ys.shape}. Expected two rows of equal length.")
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
    """First and last index of each run of gaps; where those are too many, one in each of `most` stretches."""
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
    """Indices of the lowest and highest of each stretch of the finite values, at most `most` of them."""
    most -= most % 2
    if len(where) <= most:
        return where
    from tsdownsample import MinMaxDownsampler

    picked = MinMaxDownsampler().downsample(np.ascontiguousarray(ys[where]), n_out=most)
    chosen: NDArray[np.intp] = where[picked.astype(np.intp)]
    return chosen
