"""Kahan summation: small updates of weights in low precision add up instead of being rounded away."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def add_exactly(parameter: Tensor, update: Tensor, compensation: Tensor) -> None:
    """Add an update of any shape to a parameter in place, and keep the rounding error in `compensation`, also in place.

    Kahan, CACM 8(1), 1965; for training in bfloat16: arXiv 2010.06192.
    """
    compensation.add_(update)
    before = parameter.detach().clone()
    parameter.add_(compensation)
    compensation.add_(before.sub_(parameter))
