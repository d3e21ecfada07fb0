"""Interval of one value, such as the accuracy of one model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llf_core.metrics.bootstrap import SAMPLES, as_statistics, expanded_percentiles, has_statistics, resampled_sums
from llf_core.metrics.measure import MEAN, Measure, ratio
from llf_core.metrics.wilson_interval import wilson_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.metrics.measure import Numbers


@dataclass(frozen=True)
class Interval:
    """A value over examples and its 95 % interval, None where it is not defined.

    There are no bounds for a single example, unless the value is a proportion, and for a value that is not finite.
    """

    value: float | None
    low: float | None
    high: float | None
    count: int


def interval(
    values: Sequence[float | None] | Numbers,
    measure: Measure = MEAN,
    *,
    seed: int = 0,
    samples: int = SAMPLES,
) -> Interval:
    """Compute a value over examples and its 95 % interval.

    Proportions (scores 0 and 1) have `wilson_interval`; others are bootstrapped, see `resampled_sums` and
    `expanded_percentiles`.

    Args:
        values: scores, one for each example or None; or sufficient statistics `[examples, statistics]`, zeros where
            there are none.
        measure: how the value follows from the statistics, such as `Metric.measure`.
    """
    statistics = as_statistics(values)
    statistics = statistics[has_statistics(statistics)]
    count = len(statistics)
    if not count:
        return Interval(None, None, None, 0)
    value = float(measure.total(statistics.sum(axis=0)))
    if measure.total is ratio and (statistics[:, 1] == 1).all() and np.isin(statistics[:, 0], (0, 1)).all():
        return Interval(value, *wilson_interval(float(statistics[:, 0].sum()), count), count)
    if count == 1 or not math.isfinite(value):
        return Interval(value, None, None, count)
    found = measure.total(resampled_sums(statistics, seed, samples))
    return Interval(value, *expanded_percentiles(found, count), count)
