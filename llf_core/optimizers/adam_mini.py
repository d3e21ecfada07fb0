"""Adam-mini: AdamW with one second moment for each block of the Hessian (arXiv 2406.16793, algorithms 1 and 3)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from llf_core.optimizers.moments import adamw_direction, decay_weights
from llf_core.optimizers.optimizer import Optimizer, ParameterGroup, names_of
from llf_core.optimizers.per_parameter import PerParameterOptimizer

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from llf_core.optimizers.per_parameter import Group, State

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
