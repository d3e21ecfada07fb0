"""GaLore: Adam or Adafactor on gradients that are projected to a low rank (arXiv 2403.03507)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.config.declarations.optimizers.low_rank import GaLoreOptions
from llf_core.optimizers.moments import adafactor_direction, adam_8bit_direction, adam_direction, decay_weights
from llf_core.optimizers.optimizer import Optimizer, ParameterGroup
from llf_core.optimizers.per_parameter import PerParameterOptimizer
from llf_core.optimizers.projections import find_projections, projected_groups

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor, nn

    from llf_core.optimizers.per_parameter import Group, State

DIRECTIONS: dict[str, Callable[[Tensor, State, Group], Tensor]] = {
    "adamw_torch": adam_direction,
    "adamw_torch_fused": adam_direction,
    "adamw_8bit": adam_8bit_direction,
    "adamw_bnb_8bit": adam_8bit_direction,
    "paged_adamw_8bit": adam_8bit_direction,
    "adafactor": adafactor_direction,
}
"""Direction of an update, by the name of the optimizer that GaLore is built on."""


class GaLore(Optimizer):
    """Full-rank training with low-rank moments."""

    def build(self, model: nn.Module, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
        """Build the optimizer: matrices that match `galore_target` are projected, all other parameters are not."""
        options = self.config.options(GaLoreOptions)
        settings = {
            "rank": options.galore_rank,
            "interval": options.galore_update_interval,
            "scale": options.galore_scale,
            "side": options.galore_proj_type,
            "randomized": options.galore_svd == "randomized",
        }
        return ProjectedOptimizer(
            projected_groups(model, groups, options.galore_target, settings),
            self.adam,
            direction=DIRECTIONS[self.base],
            layerwise=self.layerwise,
        )


class ProjectedOptimizer(PerParameterOptimizer):
    """Projects the gradients of groups that have a `rank` (arXiv 2403.03507, algorithm 2).

    With the gradient `G` `[..., rows, columns]` and the top `r` singular vectors `P` of the gradient every
    `interval` steps: `R = PᵀG` (or `GQᵀ`, or both), `W ← W - η α P direction(R)`.
    """

    def __init__(
        self,
        groups: list[Any],
        defaults: dict[str, Any],
        *,
        direction: Callable[[Tensor, State, Group], Tensor],
        layerwise: bool = False,
    ) -> None:
        """Create the optimizer; the settings of `GaLore.build` are in groups whose gradients are projected."""
        super().__init__(groups, defaults, layerwise=layerwise)
        self._direction = direction

    def update(self, parameter: nn.Parameter, gradient: Tensor, state: State, group: Group) -> None:
        """Update a parameter, then decay it, in the order of the package `galore-torch`.

        Args:
            parameter: `[..., rows, columns]` in a group with a `rank`, else of any shape.
            state: `left` `[..., rows, r]`, `right` `[..., r, columns]` or both, and the state of `direction` for the
                projected gradient.
        """
        if "rank" not in group:
            parameter.add_(self._direction(gradient, state, group), alpha=-group["lr"])
        else:
            if ("left" not in state and "right" not in state) or state["step"] % group["interval"] == 0:
                state |= find_projections(
                    gradient, group["rank"], group["side"], randomized=group.get("randomized", False)
                )
            left, right = state.get("left"), state.get("right")
            small = gradient if left is None else left.mT @ gradient
            small = small if right is None else small @ right.mT
            small = self._direction(small, state, group)
            large = small if left is None else left @ small
            large = large if right is None else large @ right
            parameter.add_(large, alpha=-group["lr"] * group["scale"])
        decay_weights(parameter, group)
