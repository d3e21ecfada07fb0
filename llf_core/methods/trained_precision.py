"""Precision of the trained parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.registry import optimizer_of

if TYPE_CHECKING:
    from torch import nn

    from llf_core.config import RunConfig


def keep_trained_weights_exact(model: nn.Module, config: RunConfig) -> None:
    """Cast every trainable parameter to float32, or to bfloat16 with `pure_bf16`, unless the optimizer `keeps_masters`.

    bfloat16 has 8 significant bits, so an update below about 1/256 of a weight would be lost. Autocast computes in
    the plan's dtype.
    """
    import torch

    if optimizer_of(config).keeps_masters:
        return
    dtype = torch.bfloat16 if config.get("pure_bf16") else torch.float32
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)
