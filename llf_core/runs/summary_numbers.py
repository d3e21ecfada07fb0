"""The numbers of a run that several views show: each is worked out here, so that all of them show the same.

`last` is the last logged value, whatever it is; one that was smoothed is never called so. Views that read no whole run
(a list of many) take the last values from `runs.latest`, which has the same ones, and the rest of the time from
`runs.pace`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llf_core.runs.metric_catalog import BETTER, HELD_OUT, lead, shown
from llf_core.runs.smoothing import automatic_window, smooth

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Line = tuple[NDArray[np.int64], NDArray[np.float64]]
    Series = Mapping[str, Line]  # name -> (steps [n], values [n]), as logged, undecimated

NOTHING: Line = (np.empty(0, np.int64), np.empty(0))


def line(series: Series, name: str) -> Line:
    """Steps and values of a name; empty where nothing was logged."""
    return series.get(name, NOTHING)


def last(series: Series, name: str) -> float | None:
    """The last logged value of a name, NaN and infinities included; None where there is none."""
    _, values = line(series, name)
    return float(values[-1]) if values.size else None


def first(series: Series, name: str) -> float | None:
    """The first logged value of a name."""
    _, values = line(series, name)
    return float(values[0]) if values.size else None


def best(series: Series, name: str) -> tuple[int, float] | None:
    """Step and value at which a number was best; None where no value is finite.

    Args:
        series: what the run logged.
        name: as logged, with or without what stands before held-out names. Of a number of which neither more nor less
            is better it is the last finite one.
    """
    steps, values = line(series, name)
    good = np.flatnonzero(np.isfinite(values))
    if not good.size:
        return None
    better = BETTER.get(name.removeprefix(HELD_OUT))
    places = {"more": np.argmax, "less": np.argmin}
    place = good[places[better](values[good])] if better else good[-1]
    return int(steps[place]), float(values[place])


def median(series: Series, name: str) -> float | None:
    """The median of the finite values of a name."""
    _, values = line(series, name)
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else None


def highest(series: Series, name: str) -> float | None:
    """The highest finite value of a name."""
    _, values = line(series, name)
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else None


def window_of(series: Series, total: int) -> int:
    """The window in steps that a run is smoothed over where the reader has chosen none.

    Args:
        series: what the run logged.
        total: planned steps; 0 where unknown.
    """
    steps, _ = line(series, lead(series))
    return automatic_window(total, float(steps[1] - steps[0]) if steps.size > 1 else 1.0)


def smoothed(series: Series, window: int) -> dict[str, NDArray[np.float64]]:
    """Every number that stands in a group, smoothed.

    Args:
        series: what the run logged.
        window: steps; 0 leaves the values as they are.

    Returns:
        Name -> `[n]`, beside the series of that name.
    """
    names = {name for one in shown(series) for name in one.lines} & series.keys()
    return {name: smooth(*series[name], window) if window else series[name][1] for name in names}


def last_finite(values: NDArray[np.float64]) -> float | None:
    """The last finite one of some smoothed values `[n]`."""
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if finite.size else None
