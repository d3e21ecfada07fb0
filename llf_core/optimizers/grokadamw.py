"""GrokAdamW: AdamW on gradients with their slow part amplified (Grokfast, arXiv 2405.20233, section 2).

As in the package `grokadamw` (Hartford 2024): each gradient is clipped by its own norm, and the first moment decays
faster from one parameter to the next. Its grokking signal needs a loss that no trainer provides, and is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from llf_core.config.rules.mappings import optimizer_options
from llf_core.optimizers.moments import bias_correction, decay_weights
from llf_core.optimizers.optimizer import Optimizer, ParameterGroup
from llf_core.optimizers.per_parameter import PerParameterOptimizer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from llf_core.optimizers.per_parameter import Group, State

SMALLEST_NORM = 1e-6
"""Added to the norm in the denominator, as in `torch.nn.utils.clip_grad_norm_`."""


class GrokAdamW(Optimizer):
    """AdamW that amplifies slow gradients."""

    def build(self, model: nn.Module, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
        """Build the optimizer, with the options of `optim_args` that transformers has for it."""
        del model
        options = optimizer_options(self.config.optimizer.optim_args)
        defaults = self.adam | {
            "alpha": options.get("alpha_init", 0.98),
            "lamb": options.get("lamb", 2.0),
            "gamma": options.get("gamma", 0.1),
            "clipping": options.get("gradient_clipping", 1.0),
        }
        return GrokAdamWOptimizer(groups, defaults)


class GrokAdamWOptimizer(PerParameterOptimizer):
    """`s ← αs + (1-α)g`, then AdamW on `g + λs` with `β₁(1-γ)ⁱ` for the i-th parameter of a group."""

    def __init__(self, groups: list[Any], defaults: dict[str, Any]) -> None:
        super().__init__(groups, defaults, layerwise=False)
        self._places = {one: place for group in self.param_groups for place, one in enumerate(group["params"])}

    def update(self, parameter: nn.Parameter, gradient: Tensor, state: State, group: Group) -> None:
        """Decay a parameter of any shape, then update it by its gradient with the slow part (`slow`, s) amplified."""
        if "slow" not in state:
            state |= {name: torch.zeros_like(gradient) for name in ("slow", "exp_avg", "exp_avg_sq")}
        state["step"] = state.get("step", 0) + 1
        if group["clipping"] > 0:
            gradient = gradient * (group["clipping"] / (gradient.norm() + SMALLEST_NORM)).clamp(max=1.0)
        beta1, beta2 = group["betas"]
        beta1 *= (1.0 - group["gamma"]) ** self._places[parameter]
        slow = state["slow"].mul_(group["alpha"]).add_(gradient, alpha=1.0 - group["alpha"])
        amplified = gradient + group["lamb"] * slow
        first = state["exp_avg"].mul_(beta1).add_(amplified, alpha=1.0 - beta1)
        second = state["exp_avg_sq"].mul_(beta2).addcmul_(amplified, amplified, value=1.0 - beta2)
        decay_weights(parameter, group)
        rate = group["lr"] * bias_correction(state["step"], group)
        parameter.addcdiv_(first, second.sqrt().add_(group["eps"]), value=-rate)
