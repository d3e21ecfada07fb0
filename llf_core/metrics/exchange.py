"""Exchange test: whether two models on the same examples differ more than one model with another random seed would."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.metrics.measure import Numbers

SIGNS_AT_A_TIME = 4_000_000
ROUNDING = 1e-9
"""Relative difference of two sums of the same numbers in another order."""


def exchange_p_value(
    first: Numbers, second: Numbers, total: Callable[[Numbers], Numbers], *, seed: int, samples: int
) -> float:
    """How often a difference at least as large comes from exchanging the two models at random in each example.

    If both models answer alike, each exchange is equally probable, so the test holds its level for any number of
    examples and any measure. Approximate randomization: E. Noreen, Computer-intensive methods for testing hypotheses
    (1989); S. Riezler and J. Maxwell, On some pitfalls in automatic evaluation, ACL Workshop 2005, W05-0908.

    Args:
        first, second: statistics of the models, of shape `[examples, statistics]`.
        total: value from the sum of the statistics.

    Returns:
        The two-sided p-value, at least 1 / (samples + 1); 1 if the difference is not finite, as without examples.
    """
    half, middle = (second - first) / 2, (second + first).sum(axis=0) / 2
    half = half[(half != 0).any(axis=1)]  # equal statistics stay equal
    measured = abs(float(total(middle + half.sum(axis=0)) - total(middle - half.sum(axis=0))))
    if not np.isfinite(measured):
        return 1.0
    draw, larger = np.random.default_rng(seed), 0
    rows = max(1, SIGNS_AT_A_TIME // max(len(half), 1))
    for start in range(0, samples, rows):
        size = min(rows, samples - start)
        signs = draw.integers(0, 2, (size, len(half)), dtype=np.int8) * 2 - 1
        moved = signs.astype(float) @ half
        with np.errstate(invalid="ignore"):  # two infinite perplexities
            found = np.abs(total(middle + moved) - total(middle - moved))
        larger += int((~(found < measured * (1 - ROUNDING))).sum())
    return (larger + 1) / (samples + 1)
