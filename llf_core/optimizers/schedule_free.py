"""Schedule-free SGD, AdamW and RAdam (arXiv 2405.15682, algorithm 1): trained at y, evaluated at the average x."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from llf_core.config.rules.conditions import optimizer_options
from llf_core.optimizers.optimizer import Optimizer, ParameterGroup
from llf_core.optimizers.per_parameter import PerParameterOptimizer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from llf_core.optimizers.per_parameter import Group, State

SGD_MOMENTUM = 0.9
"""β₁ of SGD, the default of the package `schedulefree`."""
RECTIFIED_FROM = 4.0
"""Length of the average above which RAdam's variance is defined (arXiv 1908.03265, algorithm 2)."""


class ScheduleFree(Optimizer):
    """A schedule-free optimizer, by the name in `optim`."""

    def build(self, model: nn.Module, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
        """Build the optimizer that `optim` names, with the options of `optim_args`."""
        del model
        kind = self.config.optimizer.optim.rpartition("_")[2]
        options = optimizer_options(self.config.optimizer.optim_args)
        defaults = self.adam | {"power": options.get("r", 0.0), "lr_power": options.get("weight_lr_power", 2.0)}
        if kind == "sgd":
            defaults["betas"] = (SGD_MOMENTUM, 0.0)
        return ScheduleFreeOptimizer(groups, defaults, kind=kind)


def _rectification(length: float, longest: float) -> float:
    """RAdam's factor of the rate (arXiv 1908.03265, algorithm 2)."""
    return float(((length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)) ** 0.5)


class ScheduleFreeOptimizer(PerParameterOptimizer):
    """Keeps the weights `z` beside the parameters, which are `y` while it trains and `x` while they are evaluated.

    With the normalized gradient `g` at `y`: `z ← z - ηg`, `x ← (1-c)x + cz` and `y = (1-β₁)z + β₁x`, where `c` is the
    share of this step in the sum of all weights `tʳ ηmaxᵖ` (arXiv 2405.15682, algorithm 1).
    """

    def __init__(self, groups: list[Any], defaults: dict[str, Any], *, kind: str) -> None:
        """Create the optimizer, in training mode.

        Args:
            defaults: `lr`, `betas`, `eps`, `power` (r) and `lr_power` (p).
            kind: `sgd`, `adamw` or `radam`.
        """
        progress = {"steps": 0, "weight_sum": 0.0, "lr_max": -1.0, "trains": True}
        super().__init__(groups, defaults | progress, layerwise=False)
        self._kind = kind

    def begin(self, group: Group) -> None:
        """Compute the rate and the share `c` of a step (arXiv 2405.15682, algorithm 1).

        The first steps of RAdam, without a variance yet, have the rate 0 (arXiv 1908.03265, algorithm 2).

        Args:
            group: `rate`, `rectified` and `share` are set, `steps`, `lr_max` and `weight_sum` updated.
        """
        group["steps"] += 1
        step, (_, beta2) = group["steps"], group["betas"]
        group["rectified"], rate = True, group["lr"]
        if self._kind == "radam":
            longest = 2 / (1 - beta2) - 1
            length = longest - 2 * step * beta2**step / (1 - beta2**step)
            group["rectified"] = length > RECTIFIED_FROM
            rate *= _rectification(length, longest) if group["rectified"] else 0.0
        group["rate"], group["lr_max"] = rate, max(rate, group["lr_max"])
        weight = step ** group["power"] * group["lr_max"] ** group["lr_power"]
        group["weight_sum"] += weight
        group["share"] = weight / group["weight_sum"] if group["weight_sum"] else 0.0

    def update(self, parameter: nn.Parameter, gradient: Tensor, state: State, group: Group) -> None:
        """Update `y` and `z` by a gradient at `y`; the average `x` follows from both.

        Args:
            parameter: y, of any shape.
            state: `z`, and except for `sgd` `exp_avg_sq`, of the same shape.
        """
        beta1, beta2 = group["betas"]
        if "z" not in state:
            state["z"] = parameter.detach().clone(memory_format=torch.preserve_format)
            if self._kind != "sgd":
                state["exp_avg_sq"] = torch.zeros_like(parameter)
        if self._kind != "sgd":
            second = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            if group["rectified"]:
                gradient = gradient / second.div(1 - beta2 ** group["steps"]).sqrt_().add_(group["eps"])
        if group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        share, rate = group["share"], group["rate"]
        parameter.lerp_(state["z"], weight=share)
        parameter.add_(gradient, alpha=rate * (beta1 * (1 - share) - 1))
        state["z"].sub_(gradient, alpha=rate)

    @torch.no_grad()
    def eval(self) -> None:
        """Set all parameters to the average `x = y + (1 - 1/β₁)(z - y)` (arXiv 2405.15682, algorithm 1).

        `y` is kept, so that `train` restores it exactly. β₁ must not be 0, which a rule of the config checks.
        """
        for group in self.param_groups:
            for parameter in group["params"] if group["trains"] else ():
                state = self.state[parameter]
                if "z" in state:
                    state["y"] = parameter.detach().clone(memory_format=torch.preserve_format)
                    parameter.lerp_(state["z"], weight=1 - 1 / group["betas"][0])
            group["trains"] = False

    @torch.no_grad()
    def train(self) -> None:
        """Restore `y` in all parameters after an evaluation or a saved checkpoint."""
        for group in self.param_groups:
            for parameter in () if group["trains"] else group["params"]:
                kept = self.state[parameter].pop("y", None)
                if kept is not None:
                    parameter.copy_(kept)
            group["trains"] = True
