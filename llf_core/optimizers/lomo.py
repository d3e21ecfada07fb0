"""LOMO (arXiv 2306.09782) and AdaLOMO (arXiv 2310.10195): each parameter is updated in the backward pass."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llf_core.optimizers.moments import adafactor_normalized, decay_weights, rms
from llf_core.optimizers.optimizer import Optimizer, ParameterGroup
from llf_core.optimizers.per_parameter import PerParameterOptimizer

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from llf_core.optimizers.per_parameter import Group, State

DECAY = -0.8
"""Exponent of the step in the decay of the second moment (Adafactor, arXiv 1804.04235, section 7.2)."""
CLIPPING = 1.0
"""Largest root mean square of an update before its learning rate (Adafactor, section 6)."""
SMALLEST_RMS = 1e-3
"""Minimum root mean square of a parameter that its learning rate is scaled by (Adafactor's ε₂, algorithm 4)."""


class LOMO(Optimizer):
    """SGD fused into the backward pass."""

    def build(self, model: nn.Module, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
        """Build the optimizer, which updates each parameter in the backward pass."""
        del model
        return LOMOOptimizer(groups, {"lr": self.config.optimizer.learning_rate}, layerwise=True)


class AdaLOMO(Optimizer):
    """Adafactor with grouped normalization, fused into the backward pass."""

    def build(self, model: nn.Module, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
        """Build the optimizer, which updates each parameter in the backward pass."""
        del model
        return AdaLOMOOptimizer(groups, {"lr": self.config.optimizer.learning_rate}, layerwise=True)


class LOMOOptimizer(PerParameterOptimizer):
    """`W ← W - ηG` (LOMO, arXiv 2306.09782, algorithm 1), in float32 whatever the parameter's dtype."""

    def update(self, parameter: nn.Parameter, gradient: Tensor, state: State, group: Group) -> None:
        """Decay a parameter of any shape, then update it in float32, so that only the result is rounded."""
        del state
        exact = parameter.float()
        decay_weights(exact, group)
        parameter.copy_(exact.add_(gradient.float(), alpha=-group["lr"]))


class AdaLOMOOptimizer(PerParameterOptimizer):
    """Algorithm 1 of AdaLOMO: `u = G / √(rcᵀ)`, and `W ← W - η max(ε, RMS(W)) u / max(1, RMS(u))`."""

    def update(self, parameter: nn.Parameter, gradient: Tensor, state: State, group: Group) -> None:
        """Decay a parameter of any shape, then update it at a rate that is proportional to its root mean square."""
        state["step"] = state.get("step", 0) + 1
        update = adafactor_normalized(gradient.float(), state, 1.0 - math.pow(state["step"], DECAY))
        update.div_((rms(update) / CLIPPING).clamp_(min=1.0))
        exact = parameter.float() if parameter.dtype.itemsize < 4 else parameter  # noqa: PLR2004 - bytes of float32
        rate = rms(exact).clamp_(min=SMALLEST_RMS).mul_(group["lr"])
        decayed = exact * (1.0 - rate * group["weight_decay"]) if group["weight_decay"] > 0 else exact
        parameter.copy_(decayed - update.mul_(rate))
