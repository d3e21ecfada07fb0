"""APOLLO and APOLLO-Mini: AdamW's learning rates by channel or tensor, from low-rank gradients (arXiv 2412.05270)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from llf_core.config.declarations.optimizers.low_rank import ApolloOptions
from llf_core.optimizers.moments import adam_direction, adam_ratio, bias_correction, decay_weights
from llf_core.optimizers.optimizer import Optimizer, ParameterGroup
from llf_core.optimizers.per_parameter import PerParameterOptimizer
from llf_core.optimizers.projections import find_projections, projected_groups, projected_side

if TYPE_CHECKING:
    from torch import Tensor, nn

    from llf_core.optimizers.per_parameter import Group, State

GROWTH = 1.01
"""γ of the limiter: maximum growth of an update's norm from step to step (Fira, arXiv 2410.01623, eq. 8)."""
SMALLEST_NORM = 1e-8
"""Added to norms that divide, as in the authors' code."""
PRIME = 1_000_003


class Apollo(Optimizer):
    """Full-rank training with learning rates of low-rank moments."""

    def build(self, model: nn.Module, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
        """Build the optimizer: matrices that match `apollo_target` are projected, all others have AdamW."""
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
        super().__init__(groups, defaults, layerwise=layerwise)
        members = [parameter for group in self.param_groups for parameter in group["params"]]
        self._seeds = {parameter: (seed * PRIME + place) * PRIME % 2**62 for place, parameter in enumerate(members)}

    def update(self, parameter: nn.Parameter, gradient: Tensor, state: State, group: Group) -> None:
        """Update a parameter by its gradient, scaled by the low-rank moments, then decay it.

        Args:
            parameter: `[..., rows, columns]` in a group with a `rank`, else of any shape.
            state: `step`; `exp_avg` and `exp_avg_sq` of the projected gradient, `[..., r, columns]` (left) or `[...,
                rows, r]` (right); `norm` of the last update, `[..., 1, 1]`; and the projection of an SVD.
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
        """Projection of a step, the same for `interval` steps: drawn by a seed, or singular vectors of the gradient.

        A seed takes no memory: the same projection is drawn again in each step.

        Returns:
            For parameters `[..., rows, columns]`: `[..., rows, r]` (left) or `[..., r, columns]` (right).
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
