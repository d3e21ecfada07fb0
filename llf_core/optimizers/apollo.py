"""APOLLO and APOLLO-Mini: AdamW's learning rates by channel or tensor, from gradients of low rank (arXiv 2412.05270).

Written from the paper's algorithm 1; the growth of an update is limited as in Fira (arXiv 2410.01623, equation 8).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from llf_core.config.declarations.optimizers.apollo import ApolloOptions
from llf_core.optimizers.moments import adam_direction, adam_ratio, bias_correction, decay_weights
from llf_core.optimizers.optimizer import Optimizer, ParameterGroup
from llf_core.optimizers.per_parameter import PerParameterOptimizer
from llf_core.optimizers.projections import find_projections, projected_groups, projected_side

if TYPE_CHECKING:
    from torch import Tensor, nn

    from llf_core.optimizers.per_parameter import Group, State

GROWTH = 1.01
"""γ of the limiter: how much the norm of an update may grow from one step to the next, as Fira has it."""
SMALLEST_NORM = 1e-8
"""Added to norms that divide, as in the authors' code."""
PRIME = 1_000_003
"""Multiplier that makes seeds of several numbers."""


class Apollo(Optimizer):
    """Full-rank training with learning rates of low-rank moments."""

    def build(self, model: nn.Module, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
        """Build the optimizer: matrices that `apollo_target` means are projected, all others have AdamW.

        The moments of projected gradients take little memory.
        """
        options = self.config.options(ApolloOptions)
        settings = {
            "rank": options.apollo_rank,
            "interval": options.apollo_update_interval,
            "scale": options.apollo_scale,
            "side": options.apollo_proj_type,
            "random": options.apollo_proj == "random",
            "by_channel": options.apollo_scale_type == "channel",
            "scale_front": options.apollo_scale_front,
        }
        return ApolloOptimizer(
            projected_groups(model, groups, options.apollo_target, settings),
            self.adam,
            seed=self.config.training.seed,
            layerwise=self.layerwise,
        )


class ApolloOptimizer(PerParameterOptimizer):
    """Scales the gradients of groups that have a `rank`.

    With the gradient `G` `[..., rows, columns]` and a projection `P` with values from `N(0, 1/r)`: `R = PG`,
    `R̃` is AdamW's update of `R`, `s = ‖R̃‖ / ‖R‖` of each channel (or of the tensor), and `W ← W - η √scale s G`
    (arXiv 2412.05270, algorithm 1).
    """

    def __init__(self, groups: list[Any], defaults: dict[str, Any], *, seed: int, layerwise: bool = False) -> None:
        """Create the optimizer.

        Args:
            groups: with the settings that `Apollo.build` gives where gradients are projected.
            defaults: of all groups: `lr`, `betas`, `eps`.
        """
        super().__init__(groups, defaults, layerwise=layerwise)
        members = [parameter for group in self.param_groups for parameter in group["params"]]
        self._seeds = {parameter: (seed * PRIME + place) * PRIME % 2**62 for place, parameter in enumerate(members)}

    def update(self, parameter: nn.Parameter, gradient: Tensor, state: State, group: Group) -> None:
        """Update a parameter, then decay it: its whole gradient, at the learning rates of moments of low rank.

        Args:
            parameter: of any shape; a matrix `[..., rows, columns]` in a group with a `rank`.
            gradient: of the same shape.
            state: `step`; `exp_avg` and `exp_avg_sq` of the projected gradient, `[..., r, columns]` (left) or
                `[..., rows, r]` (right); `norm` of the last update, `[..., 1, 1]`; and the projection of an SVD.

        Source:
            arXiv 2412.05270, algorithm 1; the limit of growth: arXiv 2410.01623, equation 8.
        """
        if "rank" not in group:
            parameter.add_(adam_direction(gradient, state, group), alpha=-group["lr"])
        else:
            side = projected_side(gradient, group["side"])
            matrix = self.projection(parameter, gradient, state, group, side)
            small = matrix.mT @ gradient if side == "left" else gradient @ matrix.mT
            direction = adam_ratio(small, state, group)
            axes = ((-2 if side == "left" else -1),) if group["by_channel"] else (-2, -1)
            factor = direction.norm(dim=axes, keepdim=True) / (small.norm(dim=axes, keepdim=True) + SMALLEST_NORM)
            update = gradient * factor
            if group["scale_front"]:
                update.mul_(math.sqrt(group["scale"]))
            norm = update.norm(dim=(-2, -1), keepdim=True)
            if "norm" in state:
                excess = (norm / (state["norm"] + SMALLEST_NORM)).clamp_(min=GROWTH).div_(GROWTH)
                excess.masked_fill_(state["norm"] == 0, 1.0)  # a matrix that had no gradient, such as an unused expert
                update.div_(excess)
                norm.div_(excess)
            state["norm"] = norm
            if not group["scale_front"]:
                update.mul_(math.sqrt(group["scale"]))
            parameter.add_(update, alpha=-group["lr"] * bias_correction(state["step"], group))
        decay_weights(parameter, group)

    def projection(self, parameter: Tensor, gradient: Tensor, state: State, group: Group, side: str) -> Tensor:
        """The projection of a step, the same for `interval` steps: drawn by a seed, or singular vectors of a gradient.

        A seed takes no memory, since the same projection is drawn again in each of these steps.

        Args:
            parameter: `[..., rows, columns]`.
            gradient: of the same shape; every `interval` steps a new projection is found from it by SVD.
            state: its `step`, and a projection of an SVD under the name of the side, where a new one is stored.
            side: `left` or `right`.

        Returns:
            `[..., rows, r]` (left) or `[..., r, columns]` (right).
        """
        step = state.get("step", 0)
        if not group["random"]:
            if side not in state or step % group["interval"] == 0:
                state |= find_projections(gradient, group["rank"], side)
            found: Tensor = state[side]
            return found
        *outer, rows, columns = gradient.shape
        shape = (*outer, rows, group["rank"]) if side == "left" else (*outer, group["rank"], columns)
        generator = torch.Generator(gradient.device).manual_seed(self._seeds[parameter] + step // group["interval"])
        drawn = torch.randn(shape, generator=generator, device=gradient.device)
        return drawn.div_(math.sqrt(group["rank"])).to(gradient.dtype)
