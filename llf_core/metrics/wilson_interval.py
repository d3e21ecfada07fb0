"""Confidence interval of a measured proportion."""

from __future__ import annotations

from math import sqrt

SIGMA = 1.959963984540054
"""97.5 % quantile of the normal distribution."""


def wilson_interval(successes: float, count: int) -> tuple[float, float]:
    """Wilson score interval (95 %) of a proportion, in [0, 1], valid for few trials and near 0 and 1 too.

    A tie may count as half a success. E. B. Wilson, Probable inference, the law of succession, and statistical
    inference, JASA 22 (1927), p. 209.
    """
    share, squared = successes / count, SIGMA**2
    middle = (share + squared / (2 * count)) / (1 + squared / count)
    half = SIGMA / (1 + squared / count) * sqrt(share * (1 - share) / count + squared / (4 * count**2))
    return max(middle - half, 0.0), min(middle + half, 1.0)
