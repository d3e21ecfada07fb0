"""Reads a linear module as the operand of a product: its frozen weight and its adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from llf_core.acceleration.kernels.linear import Operand

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peft.tuners.lora import LoraLayer

# Classes are compared by name, since a model without adapters does not need the libraries imported.
ADAPTED = {("peft.tuners.lora.layer", "Linear"), ("peft.tuners.lora.bnb", "Linear4bit")}
CONV1D = ("transformers.pytorch_utils", "Conv1D")
FOUR_BITS = ("bitsandbytes.nn.modules", "Linear4bit")


def is_adapted(module: nn.Module) -> bool:
    """Whether a module is a LoRA layer of PEFT over a base that `operand` can read."""
    return _name(module) in ADAPTED and _is_known(module.get_base_layer())  # type: ignore[operator]


def operand(module: nn.Module) -> Operand | None:  # noqa: PLR0911 - one return per reason
    """Read weight, bias and active adapter of a frozen linear layer, plain, with LoRA or 4-bit.

    Called in every forward, since adapters are switched on and off. None if the fast product would differ from the
    module: its weight or bias is trained, its class is unknown, it is quantized otherwise, repacked for a CPU, sharded
    or has hooks, or its adapter has dropout or a bias, is a LoRA variant (DoRA), is not the only active one, or is
    merged while adapters are disabled.
    """
    adapter, scale, base = None, 1.0, module
    if _name(module) in ADAPTED:
        base = module.base_layer  # type: ignore[assignment]
        found = _adapter(module)
        if found is None:
            return None
        adapter, scale = found
    if not _is_known(base) or any(part._forward_hooks or part._forward_pre_hooks for part in (base, module)):
        return None
    weight: Any = base.weight
    bias: Any = getattr(base, "bias", None)
    if weight.requires_grad or (bias is not None and bias.requires_grad):
        return None
    if _name(base) == FOUR_BITS:
        state = getattr(weight, "quant_state", None) or getattr(base, "quant_state", None)  # a gathered shard has none
        # bitsandbytes has repacked the weight for its inference kernel.
        if state is None or getattr(state, "packing_format_for_cpu", False):
            return None
        return Operand(weight.data, bias, state, adapter=adapter, scale=scale)
    if type(weight) not in (nn.Parameter, torch.Tensor):  # quantized or sharded
        return None
    return Operand(weight, bias, transposed=_name(base) == CONV1D, adapter=adapter, scale=scale)


def _name(module: nn.Module) -> tuple[str, str]:
    kind = type(module)
    return kind.__module__, kind.__qualname__


def _is_known(base: nn.Module) -> bool:
    return type(base) is nn.Linear or _name(base) in (CONV1D, FOUR_BITS)


def _adapter(module: LoraLayer) -> tuple[tuple[torch.Tensor, torch.Tensor] | None, float] | None:
    """The active plain adapter and its scale; `(None, 1)` if none is active, None for any other adapter."""
    if module.merged:
        return None if module.disable_adapters else (None, 1.0)
    active = [name for name in module.active_adapters if name in module.lora_A]
    if module.disable_adapters or not active:
        return None, 1.0
    name = active[0]
    dropout = module.lora_dropout[name]
    dropped = not isinstance(dropout, nn.Identity) and module.training and dropout.p > 0
    if len(active) > 1 or module.lora_variant or dropped or module.lora_bias.get(name):
        return None
    pair: tuple[nn.Linear, nn.Linear] = (module.lora_A[name], module.lora_B[name])
    if any(type(part) is not nn.Linear or part._forward_hooks or part._forward_pre_hooks for part in pair):
        return None
    return (pair[0].weight, pair[1].weight), module.scaling[name]


def operands(modules: Iterable[nn.Module]) -> list[Operand] | None:
    """Read several modules with `operand`; None if one of them cannot be read."""
    found = []
    for module in modules:
        one = operand(module)
        if one is None:
            return None
        found.append(one)
    return found
