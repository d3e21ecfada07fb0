"""Adam's and Adafactor's directions of an update, from a gradient and a state of the gradient's shape."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.optimizers.per_parameter import Group, State

BLOCK = 256
SMALLEST_8BIT = 4096
"""Smaller tensors are kept in full precision, as in bitsandbytes."""
ADAFACTOR_EPSILON = 1e-30
ADAFACTOR_DECAY = -0.8
ADAFACTOR_CLIPPING = 1.0
"""ε₁, the exponent of the step in `β₂ₜ` and the clipping threshold d (arXiv 1804.04235, algorithm 6)."""


def adam_direction(gradient: Tensor, state: State, group: Group) -> Tensor:
    """Adam's update without the learning rate, of the gradient's shape (arXiv 1412.6980, end of section 2).

    `m ← β₁m + (1-β₁)g`, `v ← β₂v + (1-β₂)g²`, and the result is `√(1-β₂ᵗ) / (1-β₁ᵗ) · m / (√v + ε)`.

    Args:
        state: `step`, `exp_avg` (m) and `exp_avg_sq` (v), of the gradient's shape and dtype; filled at the first
            call.
        group: `betas` and `eps`.
    """
    return adam_ratio(gradient, state, group).mul_(bias_correction(state["step"], group))


def adam_ratio(gradient: Tensor, state: State, group: Group) -> Tensor:
    """`m / (√v + ε)` of the gradient's shape: Adam's update before bias correction (arXiv 1412.6980, section 2)."""
    if "exp_avg" not in state:
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
    state["step"] = state.get("step", 0) + 1
    return _direction(gradient, state["exp_avg"], state["exp_avg_sq"], group)


def bias_correction(step: int, group: Group) -> float:
    """Bias correction `√(1-β₂ᵗ) / (1-β₁ᵗ)` of Adam's update (arXiv 1412.6980, section 2); t is counted from 1."""
    beta1, beta2 = group["betas"]
    return math.sqrt(1.0 - beta2**step) / float(1.0 - beta1**step)


def adamw_direction(gradient: Tensor, state: State, group: Group) -> Tensor:
    """Adam's update without the learning rate, of the gradient's shape, with ε where `torch.optim.AdamW` has it.

    `m / (1-β₁ᵗ) / (√(v / (1-β₂ᵗ)) + ε)` (arXiv 1412.6980, algorithm 1).
    """
    if "exp_avg" not in state:
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
    state["step"] = state.get("step", 0) + 1
    beta1, beta2 = group["betas"]
    first = state["exp_avg"].lerp_(gradient, 1.0 - beta1)
    second = state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
    denominator = second.sqrt().div_(math.sqrt(1.0 - beta2 ** state["step"])).add_(group["eps"])
    return torch.div(first, denominator, out=denominator).div_(1.0 - beta1 ** state["step"])


def adam_8bit_direction(gradient: Tensor, state: State, group: Group) -> Tensor:
    """Adam's update of the gradient's shape, with moments kept in 8 bits between steps (arXiv 2110.02861, section 2).

    Gradients of fewer than `SMALLEST_8BIT` values keep full moments, see `adam_direction`.

    Args:
        state: `step`, and of each moment its codes (uint8, of the gradient's shape) and their scales `[blocks]`
            (float32).
    """
    if gradient.numel() < SMALLEST_8BIT:
        return adam_direction(gradient, state, group)
    from bitsandbytes import functional

    state["step"] = state.get("step", 0) + 1
    exact = gradient.float()
    moments = []
    for name, signed in (("exp_avg", True), ("exp_avg_sq", False)):
        if name in state:
            codes = _codes(exact.device, signed=signed)
            scales = functional.QuantState(
                absmax=state[f"{name}_scale"], code=codes, blocksize=BLOCK, dtype=torch.float32
            )
            moments.append(functional.dequantize_blockwise(state[name], scales))
        else:
            moments.append(torch.zeros_like(exact))
    first, second = moments
    direction = _direction(exact, first, second, group).mul_(bias_correction(state["step"], group))
    for (name, signed), moment in zip((("exp_avg", True), ("exp_avg_sq", False)), moments, strict=True):
        codes = _codes(exact.device, signed=signed)
        state[name], scales = functional.quantize_blockwise(moment, code=codes, blocksize=BLOCK)
        state[f"{name}_scale"] = scales.absmax
    return direction.to(gradient.dtype)


def adafactor_direction(gradient: Tensor, state: State, group: Group) -> Tensor:
    """Adafactor's update without the learning rate, of the gradient's shape, as transformers trains with it.

    arXiv 1804.04235, algorithm 4 for matrices and 5 for vectors, with `β₂ₜ = 1 - t^-0.8` and clipping at 1 as in
    algorithm 6, and with no first moment and no relative step.

    Args:
        gradient: `[..., rows, columns]`, or `[n]` or a scalar, where the second moment is not factored.
        state: `step`, and float32 `exp_avg_sq_row` `[..., rows]` and `exp_avg_sq_col` `[..., columns]`, or
            `exp_avg_sq` of the gradient's shape; filled at the first call.
    """
    del group
    state["step"] = state.get("step", 0) + 1
    decay = 1.0 - math.pow(state["step"], ADAFACTOR_DECAY)
    exact = gradient.float()
    update = adafactor_normalized(exact, state, decay)
    return update.div_((rms(update) / ADAFACTOR_CLIPPING).clamp_(min=1.0)).to(gradient.dtype)


def adafactor_normalized(gradient: Tensor, state: State, decay: float) -> Tensor:
    """Divide a gradient by the root of its second moment, factored over the last two of `[..., rows, columns]`.

    arXiv 1804.04235, algorithms 2 and 4. The gradient is float32; a scalar or `[n]` is not factored.
    """
    squares = gradient.square().add_(ADAFACTOR_EPSILON)
    if gradient.dim() < 2:  # noqa: PLR2004 - dimensions of a matrix
        if "exp_avg_sq" not in state:
            state["exp_avg_sq"] = torch.zeros_like(gradient)
        moment = state["exp_avg_sq"].mul_(decay).add_(squares, alpha=1.0 - decay)
        whole: Tensor = moment.rsqrt().mul_(gradient)
        return whole
    if "exp_avg_sq_row" not in state:
        state["exp_avg_sq_row"] = gradient.new_zeros(gradient.shape[:-1])
        state["exp_avg_sq_col"] = gradient.new_zeros(gradient.shape[:-2] + gradient.shape[-1:])
    rows = state["exp_avg_sq_row"].mul_(decay).add_(squares.mean(-1), alpha=1.0 - decay)
    columns = state["exp_avg_sq_col"].mul_(decay).add_(squares.mean(-2), alpha=1.0 - decay)
    by_row = (rows / rows.mean(-1, keepdim=True)).rsqrt_().unsqueeze(-1)
    found: Tensor = by_row.mul(columns.unsqueeze(-2).rsqrt()).mul_(gradient)
    return found


def rms(tensor: Tensor) -> Tensor:
    """Root mean square of all values of a tensor of any shape, a scalar; NaN of a tensor without values."""
    norm: Tensor = torch.linalg.vector_norm(tensor)
    return norm / math.sqrt(tensor.numel())


def decay_weights(parameter: Tensor, group: Group) -> None:
    """Apply decoupled weight decay (arXiv 1711.05101) in place to a parameter of any shape: `w ← w - ηλw`."""
    if group["weight_decay"] > 0:
        parameter.mul_(1.0 - group["lr"] * group["weight_decay"])


def _direction(gradient: Tensor, first: Tensor, second: Tensor, group: Group) -> Tensor:
    beta1, beta2 = group["betas"]
    first.mul_(beta1).add_(gradient, alpha=1.0 - beta1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=1.0 - beta2)
    denominator = second.sqrt().add_(group["eps"])
    return torch.div(first, denominator, out=denominator)


def _codes(device: torch.device, *, signed: bool) -> object:
    """The 256 values of the 8-bit codes, between -1 (or 0) and 1."""
    from bitsandbytes import functional

    return functional.create_dynamic_map(signed=signed).to(device)
