"""Precision of the trained parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.registry import optimizer_of

if TYPE_CHECKING:
    from torch import nn

    from llf_core.config import RunConfig


def keep_trained_weights_exact(model: nn.Module, config: RunConfig) -> None:
    """Cast every trainable parameter to float32, or to bfloat16 if `pure_bf16` is set, where the optimizer needs it.

    bfloat16 has 8 significant bits, so an update below about 1/256 of a weight would be lost. Therefore masters are
    float32, and autocast computes in the plan's dtype. With an optimizer that `keeps_masters`, weights stay as they are
    loaded.
    """
    import torch

    if optimizer_of(config).keeps_masters:
        return
    dtype = torch.bfloat16 if config.get("pure_bf16") else torch.float32
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
