"""Differences of two samples rank by rank."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def rank_differences(values: Tensor, others: Tensor) -> Tensor:
    """Difference `[P]` between each value and the value of the same rank in another sample (AOT, arXiv 2406.05882).

    (5, 1, 3) and (0, 2, 4) give (5 - 4, 1 - 0, 3 - 2).
    """
    order = values.detach().argsort(stable=True)
    ranks = order.argsort()
    return values - others.sort().values[ranks]
