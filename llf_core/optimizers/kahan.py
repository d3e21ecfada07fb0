"""Kahan summation: small updates of weights with few bits add up instead of being rounded away."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def add_exactly(parameter: Tensor, update: Tensor, compensation: Tensor) -> None:
    """Add an update to a parameter, and keep what rounding loses for the next one.

    Args:
        parameter: of any shape; changed in place.
        update: of the same shape.
        compensation: of the same shape: what was lost so far; changed in place.

    Source:
        Kahan, Further remarks on reducing truncation errors, CACM 8(1), 1965; for training in bfloat16: arXiv
        2010.06192.
    """
    compensation.add_(update)
    before = parameter.detach().clone()
    parameter.add_(compensation)
    compensation.add_(before.sub_(parameter))
