"""Interval of a ratio of two sums over examples, such as the mean loss of a token, without a bootstrap."""

from __future__ import annotations

from math import isfinite, sqrt
from typing import TYPE_CHECKING

import numpy as np

from llf_core.metrics.bootstrap import student_quantile
from llf_core.metrics.interval import Interval
from llf_core.metrics.wilson_interval import wilson_interval

if TYPE_CHECKING:
    from llf_core.metrics.measure import Numbers


def share_interval(statistics: Numbers) -> Interval:
    """Share over examples, such as of the correct tokens, and its 95 % interval: `ratio_interval` within [0, 1].

    From counted units and all units of each example, `[examples, 2]`. Wilson's interval if each example has one
    unit.
    """
    rows = np.asarray(statistics, float).reshape(-1, 2)
    rows = rows[rows[:, 1] > 0]
    found = ratio_interval(rows)
    if found.value is not None and isfinite(found.value) and (rows[:, 1] == 1).all():
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
    if count == 1 or not isfinite(value):
        return Interval(value, None, None, count)
    residuals = rows[:, 0] - value * rows[:, 1]
    error = sqrt(float(residuals @ residuals) * count / (count - 1)) / float(below)
    half = student_quantile(count - 1) * error
    return Interval(value, value - half, value + half, count)
