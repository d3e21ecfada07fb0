"""Summary numbers of a run, computed once here so that all views show the same values.

`last` is always the last logged value, never a smoothed one. Lists, which do not read whole runs, take the last values
from `runs.latest_metrics`, which agrees with this module, and the remaining time from `runs.pace`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llf_core.runs.curves import automatic_window, smooth
from llf_core.runs.metric_catalog import NOTHING_DECLARED, higher_is_better, logged_charts, primary_metric

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Line = tuple[NDArray[np.int64], NDArray[np.float64]]
    Series = Mapping[str, Line]  # name -> (steps [n], values [n]), as logged, not downsampled

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
