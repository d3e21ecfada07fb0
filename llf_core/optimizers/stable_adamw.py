"""StableAdamW: AdamW with Adafactor's update clipping (arXiv 2304.13013, algorithm 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from llf_core.config.rules.mappings import optimizer_options
from llf_core.optimizers.kahan import add_exactly
from llf_core.optimizers.optimizer import Optimizer, ParameterGroup
from llf_core.optimizers.per_parameter import PerParameterOptimizer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from llf_core.optimizers.per_parameter import Group, State

LOW_PRECISION = (torch.float16, torch.bfloat16)


class StableAdamW(Optimizer):
    """AdamW with a lower rate where a gradient is larger than its second moment."""

    def build(self, model: nn.Module, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
        """Build the optimizer, with the options of `optim_args` that transformers has for it."""
        del model
        options = optimizer_options(self.config.optimizer.optim_args)
        defaults = self.adam | {
            "kahan_sum": options.get("kahan_sum", True),
            "decay_by_rate": not options.get("decouple_lr", False),
            "max_lr": options.get("max_lr", self.config.optimizer.learning_rate),
        }
        return StableAdamWOptimizer(groups, defaults, layerwise=False)


class StableAdamWOptimizer(PerParameterOptimizer):
    """`η ← η / max(1, RMS(g / max(√v, ε)))` for each tensor, with bias correction in the decay of the moments."""

    def update(self, parameter: nn.Parameter, gradient: Tensor, state: State, group: Group) -> None:
        """Decay a parameter of any shape, then update it at the clipped rate.

        Args:
            state: `step`, `exp_avg` and `exp_avg_sq`, and `compensation` in low precision, of the same shape.
        """
        if "exp_avg" not in state:
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
            if group["kahan_sum"] and parameter.dtype in LOW_PRECISION:
                state["compensation"] = torch.zeros_like(gradient)
        state["step"] = state.get("step", 0) + 1
        beta1, beta2 = (unbiased_decay(beta, state["step"]) for beta in group["betas"])
        first = state["exp_avg"].lerp_(gradient, 1.0 - beta1)
        second = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
        ratio = gradient.square().div_(second.clamp(min=group["eps"] ** 2)).mean().sqrt()
        rate = group["lr"] / max(1.0, ratio.item())
        decay = rate if group["decay_by_rate"] else rate / group["max_lr"]
        parameter.mul_(1.0 - decay * group["weight_decay"])
        update = first.div(second.sqrt().add_(group["eps"])).mul_(-rate)
        if "compensation" in state:
            add_exactly(parameter, update, state["compensation"])
        else:
            parameter.add_(update)


def unbiased_decay(beta: float, step: int) -> float:
    """Decay rate with which a running mean has no bias: `(βᵗ - β) / (βᵗ - 1)`, with t counted from 1.

    Equal to Adam's bias correction, as part of the decay: Adafactor, arXiv 1804.04235, section 7.1.
    """
    return float((beta**step - beta) / (beta**step - 1))
