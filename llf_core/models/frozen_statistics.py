from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def keep_frozen_statistics(model: nn.Module) -> int:
    """Have batch and instance normalization layers without trained parameters compute as in evaluation, always.

    In training they use the statistics of the batch, and change their running statistics, which no adapter contains.
    Returns the number of these layers.
    """
    from torch.nn.modules.batchnorm import _NormBase

    found = [
        module
        for module in model.modules()
        if isinstance(module, _NormBase) and not any(one.requires_grad for one in module.parameters())
    ]
    for module in found:
        module.train = MethodType(_stay, module)  # type: ignore[method-assign]
        module.eval()
    return len(found)


def _stay(self: nn.Module, mode: bool = True) -> nn.Module:  # noqa: ARG001 - the signature of `nn.Module.train`
    return type(self).train(self, mode=False)
