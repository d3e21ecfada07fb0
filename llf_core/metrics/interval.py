"""Intervals of a value over examples: bootstrap, and of the ratio of two sums such as the loss of a token."""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.metrics.base_metric import MEAN, Measure, mean_statistics, ratio
from llf_core.metrics.wilson_interval import SIGMA, wilson_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.metrics.base_metric import Numbers


@dataclass(frozen=True)
class Interval:
    """A value over examples and its 95 % interval, None where it is not defined.

    There are no bounds for a single example, unless the value is a proportion, and for a value that is not finite.
    """

    value: float | None
    low: float | None
    high: float | None
    count: int


SAMPLES = 10_000


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


DRAWS_AT_A_TIME = 2_000_000

SAME_ENOUGH = 8
"""Examples for each different row of statistics from which on rows are drawn instead of examples."""


def as_statistics(values: Sequence[float | None] | Numbers) -> Numbers:
    """Sufficient statistics of each example, of shape `[examples, statistics]`.

    Args:
        values: scores of a mean, one for each example or None; or statistics, zeros where there are none.

    Raises:
        ValueError: a value is not finite, or the shape is wrong.
    """
    if isinstance(values, np.ndarray) and values.ndim == 2:  # noqa: PLR2004 - a matrix
        found: Numbers = np.asarray(values, float)
    else:
        try:
            found = mean_statistics(list(values))
        except OverflowError as error:
            raise ValueError("A score is beyond the range of a float. Expected finite numbers, or None.") from error
    if not np.isfinite(found).all():
        raise ValueError("A score is not finite. Expected finite numbers, or None where there is no score.")
    return found


def resampled_sums(statistics: Numbers, seed: int, samples: int = SAMPLES) -> Numbers:
    """Draw as many examples as there are, with replacement, and sum their statistics: `[samples, statistics]`.

    If many examples have the same statistics, the count of each is drawn from the multinomial distribution. Efron,
    Bootstrap methods: another look at the jackknife, The Annals of Statistics 7 (1979).
    """
    draw, count = np.random.default_rng(seed), len(statistics)
    different, often = np.unique(statistics, axis=0, return_counts=True)
    if len(different) * SAME_ENOUGH <= count:
        drawn: Numbers = draw.multinomial(count, often / count, samples) @ different
        return drawn
    sums = np.empty((samples, statistics.shape[1]))
    rows = max(1, DRAWS_AT_A_TIME // max(count, 1))
    for start in range(0, samples, rows):
        size = min(rows, samples - start)
        places = draw.integers(0, count, (size, count)) + np.arange(size)[:, None] * count
        times = np.bincount(places.ravel(), minlength=size * count).reshape(size, count)
        sums[start : start + size] = times @ statistics
    return sums


def expanded_percentiles(found: Numbers, count: int) -> tuple[float, float]:
    """95 % interval from bootstrap values, wider than their percentiles for few examples, which these undercover.

    The percentiles are those at which a normal interval is as wide as Student's with the unbiased variance: 2.4 %
    and 97.6 % for 200 examples, 0.9 % and 99.1 % for 10. Values that are not finite are left out; NaN if all are.

    T. Hesterberg, What teachers should know about the bootstrap, The American Statistician 69 (2015), section 5.2.
    """
    found = found[np.isfinite(found)]
    if not len(found):
        return float("nan"), float("nan")
    tail = NormalDist().cdf(-student_quantile(count - 1) * sqrt(count / (count - 1)))
    low, high = np.quantile(found, [tail, 1 - tail])
    return float(low), float(high)


QUANTILES = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060)
"""For 1 to 8 degrees of freedom, where the expansion of `student_quantile` is too small."""


def student_quantile(freedom: int) -> float:
    """97.5 % quantile of Student's distribution for at least 1 degree of freedom, with an error below 0.001.

    Abramowitz and Stegun, Handbook of mathematical functions, table 26.10; from 9 degrees of freedom on the
    expansion 26.7.5.
    """
    if freedom <= len(QUANTILES):
        return QUANTILES[freedom - 1]
    z, n = SIGMA, freedom
    return (
        z
        + (z**3 + z) / (4 * n)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    )


def has_statistics(statistics: Numbers) -> Any:
    """Which rows of statistics `[examples, statistics]` are not all 0, bools `[examples]`."""
    return (statistics != 0).any(axis=1)
