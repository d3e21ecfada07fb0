"""How many parameters a model has, and how many are trained."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Counts weights once each (tied ones too) and 4-bit weights as the weights they stand for.

    Args:
        model: any module, wrapped by PEFT or not.

    Returns:
        All parameters and the trainable ones.
    """
    total = trainable = 0
    for parameter in model.parameters():
        count = parameter.numel()
        packed = getattr(parameter, "quant_state", None)
        if packed is not None:
            count = packed.shape.numel()
        total += count
        trainable += count if parameter.requires_grad else 0
    return total, trainable
