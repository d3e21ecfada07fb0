"""What a value is computed from, and which values are better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Numbers: TypeAlias = NDArray[np.float64]


def ratio(sums: Numbers) -> Numbers:
    """The first sum divided by the second: a mean of scores, or a loss for each token or byte.

    Args:
        sums: of shape `[…, 2]`.

    Returns:
        Values of shape `[…]`; NaN where the second is 0.
    """
    return divided(sums[..., 0], sums[..., 1], np.nan)


def divided(upper: Numbers, lower: Numbers, otherwise: float) -> Numbers:
    """A quotient, and another value where the divisor is 0.

    numpy would warn and give NaN or infinity there.

    Args:
        upper: dividends, of shape `[…]`.
        lower: divisors, of shape `[…]`.
        otherwise: the value where the divisor is 0.

    Returns:
        Quotients of shape `[…]`.
    """
    found: Numbers = np.full(np.broadcast(upper, lower).shape, otherwise, float)
    np.divide(upper, lower, out=found, where=np.asarray(lower) != 0)
    return found


def mean_statistics(scores: Sequence[float | None]) -> Numbers:
    """Sufficient statistics of a mean: each score and 1, or two zeros for None.

    Returns:
        Numbers of shape `[examples, 2]`; `ratio` of their sum is the mean.
    """
    return np.array([(0.0, 0.0) if one is None else (one, 1.0) for one in scores], float).reshape(-1, 2)


@dataclass(frozen=True)
class Measure:
    """A value over examples, as intervals, comparisons and tables see it.

    Attributes:
        unit: shown behind a value. `%` is for values from 0 to 1, which are shown times 100, and whose differences are
            shown in points.
        total: the value from the sum of the sufficient statistics of examples, from shape `[…, statistics]` to `[…]`.
    """

    name: str
    label: str
    unit: str = ""
    higher_is_better: bool = True
    total: Callable[[Numbers], Numbers] = ratio


MEAN = Measure("mean", "Mean")
"""The mean of scores."""
