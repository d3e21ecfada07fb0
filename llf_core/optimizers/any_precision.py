"""AnyPrecision AdamW: AdamW with moments in chosen dtypes and Kahan summation, as in PyTorch's torchdistx."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from llf_core.config.rules.mappings import optimizer_options
from llf_core.optimizers.kahan import add_exactly
from llf_core.optimizers.moments import decay_weights
from llf_core.optimizers.optimizer import Optimizer, ParameterGroup
from llf_core.optimizers.per_parameter import PerParameterOptimizer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from llf_core.optimizers.per_parameter import Group, State


class AnyPrecisionAdamW(Optimizer):
    """AdamW with moments in chosen dtypes."""

    def build(self, model: nn.Module, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
        """Build the optimizer, with the options of `optim_args` that transformers has for it."""
        del model
        options = optimizer_options(self.config.optimizer.optim_args)
        defaults = self.adam | {
            "kahan_sum": options.get("use_kahan_summation", False),
            "momentum_dtype": options.get("momentum_dtype", "float32"),
            "variance_dtype": options.get("variance_dtype", "float32"),
            "compensation_dtype": options.get("compensation_buffer_dtype", "bfloat16"),
        }
        return AnyPrecisionOptimizer(groups, defaults, layerwise=False)


class AnyPrecisionOptimizer(PerParameterOptimizer):
    """AdamW with moments in chosen dtypes."""

    def update(self, parameter: nn.Parameter, gradient: Tensor, state: State, group: Group) -> None:
        """Decay a parameter of any shape, then update it, by Kahan summation if the group has `kahan_sum`.

        Args:
            state: `step`, and `exp_avg`, `exp_avg_sq` and `compensation` of the same shape, each in its dtype.
        """
        if "exp_avg" not in state:
            kept = {"exp_avg": "momentum_dtype", "exp_avg_sq": "variance_dtype"}
            kept |= {"compensation": "compensation_dtype"} if group["kahan_sum"] else {}
            state |= {
                name: torch.zeros_like(parameter, dtype=getattr(torch, group[dtype])) for name, dtype in kept.items()
            }
        state["step"] = state.get("step", 0) + 1
        beta1, beta2 = group["betas"]
        decay_weights(parameter, group)
        first = state["exp_avg"].mul_(beta1).add_(gradient, alpha=1.0 - beta1)
        second = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
        root = second.sqrt().div_(math.sqrt(1.0 - beta2 ** state["step"])).add_(group["eps"])
        update = first.div(root).mul_(-group["lr"] / (1.0 - beta1 ** state["step"]))
        if group["kahan_sum"]:
            add_exactly(parameter, update, state["compensation"])
        else:
            parameter.add_(update)
