"""Muon: momentum made orthogonal by Newton-Schulz (Jordan et al. 2024), scaled as in Moonlight (arXiv 2502.16982).

`torch.optim.Muon` computes the same; torch has it from 2.9 on, and for matrices alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from llf_core.config.declarations.optimizers.adam_variants import is_hidden
from llf_core.optimizers.moments import adamw_direction, decay_weights
from llf_core.optimizers.optimizer import Optimizer, ParameterGroup, names_of, split_groups
from llf_core.optimizers.per_parameter import PerParameterOptimizer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from llf_core.optimizers.per_parameter import Group, State

MOMENTUM = 0.95
STEPS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""μ, and steps and coefficients of the quintic iteration, as in Jordan et al. 2024 and `torch.optim.Muon`."""
SMALLEST_NORM = 1e-7
"""Minimum norm in the denominator, `eps` of `torch.optim.Muon`."""
RMS = 0.2
"""Root mean square of AdamW's updates, to which Muon's are scaled (arXiv 2502.16982, section 2.2)."""


class Muon(Optimizer):
    """Muon for hidden matrices, AdamW for embeddings, heads, norms and biases."""

    def build(self, model: nn.Module, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
        """Build the optimizer: Muon for the matrices that `is_hidden` selects, AdamW for all other parameters."""
        hidden = {one for one, name in names_of(model).items() if is_hidden(name, tuple(one.shape))}
        return MuonOptimizer(split_groups(groups, hidden, {"momentum": MOMENTUM}), self.adam, layerwise=self.layerwise)


class MuonOptimizer(PerParameterOptimizer):
    """Muon for groups with a `momentum`, AdamW for the others."""

    def update(self, parameter: nn.Parameter, gradient: Tensor, state: State, group: Group) -> None:
        """Decay a parameter, then update it: `B ← μB + (1-μ)G`, `W ← W - 0.2 η √max(rows, columns) NS((1-μ)G + μB)`.

        The scale gives updates as large as AdamW's (Moonlight, arXiv 2502.16982, equations 1 and 4); NS is
        `orthogonalized`.

        Args:
            parameter: `[rows, columns]` in a group with a `momentum`, else of any shape.
            state: `momentum_buffer` of the parameter's shape; of AdamW's parameters, see `moments.adamw_direction`.
        """
        decay_weights(parameter, group)
        if "momentum" not in group:
            parameter.add_(adamw_direction(gradient, state, group), alpha=-group["lr"])
            return
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = gradient.new_zeros(gradient.shape)
        buffer = state["momentum_buffer"].lerp_(gradient, 1.0 - group["momentum"])
        update = orthogonalized(gradient.lerp(buffer, group["momentum"]))
        parameter.add_(update.to(parameter.dtype), alpha=-group["lr"] * RMS * math.sqrt(max(parameter.shape)))


def orthogonalized(matrix: Tensor) -> Tensor:
    """Approximate the nearest matrix with orthonormal rows or columns by five steps of Newton-Schulz in bfloat16.

    Source: Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024,
    kellerjordan.github.io/posts/muon

    Args:
        matrix: `[rows, columns]`, of any floating dtype.

    Returns:
        `[rows, columns]`, bfloat16, with singular values of about 0.7 to 1.2. Those that are 0, or far smaller than
            the largest one, stay small.
    """
    a, b, c = COEFFICIENTS
    wide = matrix.bfloat16()
    turned = wide.size(0) > wide.size(1)
    wide = wide.T if turned else wide
    wide = wide / wide.norm().clamp(min=SMALLEST_NORM)
    for _ in range(STEPS):
        gram = wide @ wide.T
        wide = torch.addmm(wide, torch.addmm(gram, gram, gram, beta=b, alpha=c), wide, beta=a)
    return wide.T if turned else wide
