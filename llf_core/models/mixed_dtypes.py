from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import nn


def autocast_mixed_dtypes(model: nn.Module) -> AbstractContextManager[object]:
    """Autocast to the half-precision dtype of a model that has full-precision weights too, outside of the Trainer.

    A null context if all floating-point weights have one dtype.
    """
    import torch

    dtypes = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    half = next(iter(dtypes & {torch.bfloat16, torch.float16}), None)
    if half is None or len(dtypes) == 1:
        return nullcontext()
    return torch.autocast(next(model.parameters()).device.type, half)
