"""Bootstrap over examples: how much a value depends on which examples were drawn."""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.metrics.measure import mean_statistics
from llf_core.metrics.wilson_interval import SIGMA

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.metrics.measure import Numbers

SAMPLES = 10_000
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
