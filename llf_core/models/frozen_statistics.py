"""Keeps batch normalization that is not trained as it was loaded."""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def keep_frozen_statistics(model: nn.Module) -> int:
    """Have batch and instance normalization layers without trained parameters compute as in evaluation, always.

    In training batch normalization (in the encoders of Gemma 3n, Granite Speech, Parakeet and others) uses the mean and
    variance of the batch, so an example would depend on the others of its batch. It also changes its running
    statistics, which no adapter contains: the result would be another model than the one that was trained.

    Args:
        model: a model whose parameters are frozen or trained already, wrapped by PEFT or not; changed in place.
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
    """`nn.Module.train` of a layer that stays in evaluation mode."""
    return type(self).train(self, mode=False)
