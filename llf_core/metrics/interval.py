"""Interval of one value, such as the accuracy of one model, or the ratio of two sums such as the loss of a token."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llf_core.metrics.bootstrap import (
    SAMPLES,
    as_statistics,
    expanded_percentiles,
    has_statistics,
    resampled_sums,
    student_quantile,
)
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


def share_interval(statistics: Numbers) -> Interval:
    """Share over examples, such as of the correct tokens, and its 95 % interval: `ratio_interval` within [0, 1].

    From counted units and all units of each example, `[examples, 2]`. Wilson's interval if each example has one
    unit.
    """
    rows = np.asarray(statistics, float).reshape(-1, 2)
    rows = rows[rows[:, 1] > 0]
    found = ratio_interval(rows)
    if found.value is not None and math.isfinite(found.value) and (rows[:, 1] == 1).all():
        return Interval(found.value, *wilson_interval(float(rows[:, 0].sum()), found.count), found.count)
    if found.low is None or found.high is None:
        return found
    return Interval(found.value, max(found.low, 0.0), min(found.high, 1.0), found.count)


def ratio_interval(statistics: Numbers) -> Interval:
    """Ratio of two sums over examples `[examples, 2]` and its 95 % interval (Student's) from its standard error.

    Tokens of one example need not be independent. Examples with the denominator 0 are left out. There are no bounds
    for a single example or a ratio that is not finite, and no value without examples. W. G. Cochran, Sampling
    techniques, 3rd edition (1977), eq. 2.46: variance of a ratio by its residuals.
    """
    rows = np.asarray(statistics, float).reshape(-1, 2)
    rows = rows[rows[:, 1] > 0]
    count = len(rows)
    if not count:
        return Interval(None, None, None, 0)
    above, below = rows.sum(axis=0)
    value = float(above / below)
    if count == 1 or not math.isfinite(value):
        return Interval(value, None, None, count)
    residuals = rows[:, 0] - value * rows[:, 1]
    error = math.sqrt(float(residuals @ residuals) * count / (count - 1)) / float(below)
    half = student_quantile(count - 1) * error
    return Interval(value, value - half, value + half, count)
