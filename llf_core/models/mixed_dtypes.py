"""Forward passes of models whose weights have more than one dtype."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import nn


def autocast_mixed_dtypes(model: nn.Module) -> AbstractContextManager[object]:
    """Context manager for a forward pass of a model whose weights have half and full precision, outside of the Trainer.

    During training, trained weights are float32 and a frozen base is bfloat16; without autocast a product of both
    fails.

    Returns:
        Autocast to the half-precision dtype (bfloat16 or float16) that some of the floating-point weights have; a null
        context if none has one, or all have the same. Quantized weights of integers do not count.
    """
    import torch

    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    half = next(iter(dtypes & {torch.bfloat16, torch.float16}), None)
    if half is None or len(dtypes) == 1:
        return nullcontext()
    return torch.autocast(next(model.parameters()).device.type, half)
