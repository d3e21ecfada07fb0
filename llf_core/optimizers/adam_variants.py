"""Variants of AdamW: AnyPrecision, Stable, GrokAdamW and Adam-mini (arXiv 2406.16793, algorithms 1 and 3)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from llf_core.config.rules.conditions import optimizer_options
from llf_core.optimizers.moments import adamw_direction, bias_correction, decay_weights
from llf_core.optimizers.optimizer import Optimizer, ParameterGroup, names_of
from llf_core.optimizers.per_parameter import PerParameterOptimizer

if TYPE_CHECKING:
    from torch import Tensor, nn

    from llf_core.optimizers.per_parameter import Group, State


class AnyPrecisionAdamW(Optimizer):
    """AdamW with moments in chosen dtypes and Kahan summation, as in PyTorch's torchdistx."""

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


LOW_PRECISION = (torch.float16, torch.bfloat16)


class StableAdamW(Optimizer):
    """AdamW with a lower rate where a gradient is larger than its second moment.

    Adafactor's update clipping, arXiv 2304.13013, algorithm 2.
    """

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


SMALLEST_NORM = 1e-6
"""Added to the norm in the denominator, as in `torch.nn.utils.clip_grad_norm_`."""


class GrokAdamW(Optimizer):
    """AdamW that amplifies the slow part of gradients (Grokfast, arXiv 2405.20233, section 2).

    As in the package `grokadamw` (Hartford 2024): each gradient is clipped by its own norm, and the first moment decays
    faster from one parameter to the next. Its grokking signal needs a loss that no trainer provides, and is left out.
    """

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


def add_exactly(parameter: Tensor, update: Tensor, compensation: Tensor) -> None:
    """Add an update of any shape to a parameter in place, and keep the rounding error in `compensation`, also in place.

    Small updates of weights in low precision add up instead of being rounded away. Kahan, CACM 8(1), 1965; for
    training in bfloat16: arXiv 2010.06192.
    """
    compensation.add_(update)
    before = parameter.detach().clone()
    parameter.add_(compensation)
    compensation.add_(before.sub_(parameter))


QUERIES_AND_KEYS = ("q_proj", "k_proj", "wq", "wk", "query", "key")
BIASES = ("bias",)
HEADS, ROWS, WHOLE, VALUES = "heads", "rows", "whole", "values"


class AdamMini(Optimizer):
    """AdamW with one second moment for each attention head, each row of other matrices, and each vector."""

    def build(self, model: nn.Module, groups: list[ParameterGroup]) -> torch.optim.Optimizer:
        """Build the optimizer, with one group for each kind of block."""
        names, head = names_of(model), _head_size(model)
        split: list[dict[str, object]] = []
        for group in groups:
            for block in (HEADS, ROWS, WHOLE, VALUES):
                members = [one for one in group["params"] if block_of(names[one], one, head) == block]
                if members:
                    split.append({**group, "params": members, "block": block, "head": head})
        return AdamMiniOptimizer(split, self.adam, layerwise=self.layerwise)


def block_of(name: str, parameter: Tensor, head: int) -> str:
    """Which values of a parameter of any shape share a second moment: `heads`, `rows`, `whole`, or `values` (none do).

    arXiv 2406.16793, algorithm 3, with the layer names of transformers' models. `head`: rows of a head; 0 if
    unknown.
    """
    lower = name.lower()
    if any(part in lower for part in BIASES):
        return VALUES
    if parameter.dim() < 2:  # noqa: PLR2004 - dimensions of a matrix
        return WHOLE
    heads = any(part in lower for part in QUERIES_AND_KEYS) and "lora" not in lower
    return HEADS if heads and parameter.dim() == 2 and head and parameter.shape[0] % head == 0 else ROWS  # noqa: PLR2004


class AdamMiniOptimizer(PerParameterOptimizer):
    """AdamW with the mean of `g²` over a block as its second moment."""

    def update(self, parameter: nn.Parameter, gradient: Tensor, state: State, group: Group) -> None:
        """Decay a parameter of any shape, then update it with the mean of `g²` over each block as second moment.

        Args:
            state: `step`, `exp_avg` of the parameter's shape, and `exp_avg_sq`: `[heads, 1]`, `[..., rows, 1]`, a
                scalar, or the parameter's shape.
        """
        decay_weights(parameter, group)
        if group["block"] == VALUES:
            parameter.add_(adamw_direction(gradient, state, group), alpha=-group["lr"])
            return
        beta1, beta2 = group["betas"]
        squares = gradient.square()
        if group["block"] == HEADS:
            mean = squares.view(-1, group["head"] * parameter.shape[1]).mean(1, keepdim=True)
        elif group["block"] == ROWS:
            mean = squares.mean(-1, keepdim=True)
        else:
            mean = squares.mean()
        if "exp_avg" not in state:
            state["exp_avg"], state["exp_avg_sq"] = gradient.new_zeros(gradient.shape), mean.new_zeros(mean.shape)
        state["step"] = state.get("step", 0) + 1
        first = state["exp_avg"].lerp_(gradient, 1.0 - beta1)
        second = state["exp_avg_sq"].mul_(beta2).add_(mean, alpha=1.0 - beta2)
        root = second.sqrt().div_(math.sqrt(1.0 - beta2 ** state["step"])).add_(group["eps"])
        if group["block"] == HEADS:
            root = root.repeat_interleave(group["head"], dim=0)
        parameter.add_(first / root, alpha=-group["lr"] / (1.0 - beta1 ** state["step"]))


def _head_size(model: object) -> int:
    """Rows of an attention head in the projections of queries and keys; 0 if the model's config does not have it."""
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    hidden, heads = getattr(text, "hidden_size", None), getattr(text, "num_attention_heads", None)
    size = getattr(text, "head_dim", None) or (hidden // heads if hidden and heads else 0)
    return int(size)
