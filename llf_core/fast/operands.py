"""Reads a module as the operand of a product: what is frozen, what of it is adapted, and how."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from llf_core.fast.linear import Operand

if TYPE_CHECKING:
    from collections.abc import Iterable


def operand(module: nn.Module) -> Operand | None:
    """A frozen linear layer, plain, LoRA-adapted or 4-bit.

    Args:
        module: any module; looked at anew in every forward, since adapters are switched on and off.

    Returns:
        None where the fast product would not be that of the module: its weight is trained, it is of an unknown
        class, its adapter has dropout, is a variant of LoRA (DoRA), or is not the only one.
    """
    adapter, scale, base = None, 1.0, module
    if hasattr(module, "lora_A"):
        base = module.base_layer  # type: ignore[assignment]
        found = _adapter(module)
        if found is None:
            return None
        adapter, scale = found
    weight: Any = base.weight
    bias: Any = getattr(base, "bias", None)
    if any(part._forward_hooks or part._forward_pre_hooks for part in (base, module)):
        return None
    if weight.requires_grad or (bias is not None and bias.requires_grad):
        return None
    kind = type(base).__name__
    if type(base) is nn.Linear or kind == "Conv1D":
        return Operand(weight, bias, transposed=kind == "Conv1D", adapter=adapter, scale=scale)
    if kind == "Linear4bit" and getattr(weight, "quant_state", None) is not None:
        return Operand(weight.data, bias, weight.quant_state, adapter=adapter, scale=scale)
    return None


def _adapter(module: Any) -> tuple[tuple[torch.Tensor, torch.Tensor] | None, float] | None:
    """The one plain adapter that is active, `(None, 1)` where none is, None where it is of another kind."""
    if module.disable_adapters or module.merged:
        return (None, 1.0) if not module.merged or not module.disable_adapters else None
    active = [name for name in module.active_adapters if name in module.lora_A]
    if not active:
        return None, 1.0
    name = active[0]
    dropout = module.lora_dropout[name]
    plain = not isinstance(dropout, nn.Dropout) or dropout.p == 0 or not module.training
    if len(active) > 1 or module.lora_variant or not plain or module.lora_bias.get(name):
        return None
    return (module.lora_A[name].weight, module.lora_B[name].weight), module.scaling[name]


def operands(modules: Iterable[nn.Module]) -> list[Operand] | None:
    """`operand` of each, or None where one of them is none."""
    found = []
    for module in modules:
        one = operand(module)
        if one is None:
            return None
        found.append(one)
    return found
