"""Two samples compared as distributions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def matched(values: Tensor, others: Tensor) -> Tensor:
    """By how much each value is larger than the one of the same rank among others.

    Args:
        values: `[P]`.
        others: `[P]`.

    Returns:
        `[P]`, in the order of `values`: (5, 1, 3) beside (0, 2, 4) gives (5 - 4, 1 - 0, 3 - 2).
    """
    order = values.detach().argsort(stable=True)
    ranks = order.argsort()
    return values - others.sort().values[ranks]
