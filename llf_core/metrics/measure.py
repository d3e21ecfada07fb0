"""How values follow from statistics, and which values are better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Numbers: TypeAlias = NDArray[np.float64]


def ratio(sums: Numbers) -> Numbers:
    """The first sum divided by the second, `[…, 2]` to `[…]`; NaN where the second is 0."""
    return divided(sums[..., 0], sums[..., 1], np.nan)


def divided(upper: Numbers, lower: Numbers, otherwise: float) -> Numbers:
    """Quotient of two arrays of shape `[…]`, `otherwise` where the divisor is 0."""
    found: Numbers = np.full(np.broadcast(upper, lower).shape, otherwise, float)
    np.divide(upper, lower, out=found, where=np.asarray(lower) != 0)
    return found


def mean_statistics(scores: Sequence[float | None]) -> Numbers:
    """Sufficient statistics of a mean, of shape `[examples, 2]`: each score and 1, or two zeros for None."""
    return np.array([(0.0, 0.0) if one is None else (one, 1.0) for one in scores], float).reshape(-1, 2)


@dataclass(frozen=True)
class Measure:
    """A value over examples.

    Attributes:
        unit: shown after a value. `%` is for values from 0 to 1, which are shown times 100, and whose differences
            are shown in points.
        total: value from the sum of the sufficient statistics, from shape `[…, statistics]` to `[…]`.
    """

    name: str
    label: str
    unit: str = ""
    higher_is_better: bool = True
    total: Callable[[Numbers], Numbers] = ratio


MEAN = Measure("mean", "Mean")
