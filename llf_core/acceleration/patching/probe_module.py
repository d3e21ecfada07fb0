"""Makes a small copy of a module: the same class and code, in float32, with random weights and a narrow input.

Random values distinguish formulas that the model's own values hide: a norm whose weights are all near 30 hardly differs
in bfloat16 from one that adds 1 to them, and an untrained adapter has no effect.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Collection, Hashable

    from torch import Tensor

WIDTH = 8  # of the narrow input
SMALL = 100_000  # maximum number of parameters of a part that is copied at full size
CLOSE = 1e-5  # relative distance (of norms) of two float32 results of one formula
LAYER_NUMBER_NAMES = ("layer_id", "layer_index")  # in the names of attributes that hold the number of a layer


def random_normal(*shape: int, seed: int = 0) -> Tensor:
    """Normal random float32 values of the given shape, independent of the global generator."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def is_close(one: Tensor, other: Tensor) -> bool:
    """Whether two results, of any shape, are equal up to rounding.

    They have one shape and dtype, and the norm of their difference is at most `CLOSE` of that of `other`.
    """
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return bool((one - other).norm() <= CLOSE * other.norm())


def is_linear(module: object) -> bool:
    """Whether a module is a linear layer of any class, quantized or not, or an adapter around one."""
    base = getattr(module, "base_layer", module)
    return isinstance(module, nn.Module) and hasattr(base, "in_features") and hasattr(base, "out_features")


def has_dropout(module: nn.Module) -> bool:
    """Whether a module or one of its direct children applies dropout in training."""
    named = (value for name, value in vars(module).items() if "drop" in name and isinstance(value, float))
    parts = (child.p for child in module.children() if isinstance(child, nn.Dropout))
    return any(share > 0 for share in (*named, *parts))


def probe_module(module: nn.Module, inputs: Collection[str], outputs: Collection[str]) -> nn.Module | None:
    """Make a small copy of a module, with gradients disabled, since the copy's weights are written in place.

    None if the module has parts that cannot be made small, or parameters, buffers or a forward of its own.
    """
    if module._parameters or module._buffers or "forward" in vars(module):
        return None
    small = copy.copy(module)
    children: dict[str, nn.Module | None] = dict(module._modules)
    for seed, (name, child) in enumerate(children.items()):
        if name in inputs:
            children[name] = _linear(child, WIDTH, None, seed)
        elif name in outputs:
            children[name] = _linear(child, None, WIDTH, seed)
        elif child is not None:
            if sum(parameter.numel() for parameter in child.parameters()) > SMALL:
                return None
            children[name] = plain_copy(child, seed)
    vars(small)["_modules"] = children
    return small.train()


def plain_copy(module: nn.Module, seed: int = 0) -> nn.Module:
    """Copy a module to float32 on the CPU, with the forward of its class and frozen, standard normal parameters.

    Buffers keep their values. Parameters of one shape get different values.
    """
    whole = copy.deepcopy(module)
    for part in whole.modules():
        vars(part).pop("forward", None)
    whole = whole.to("cpu", torch.float32)
    generator = torch.Generator().manual_seed(seed + 100)
    for parameter in whole.parameters():
        parameter.requires_grad = False
        parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return whole


def _linear(module: Any, wide: int | None, high: int | None, seed: int) -> nn.Linear:
    base = getattr(module, "base_layer", module)
    wide, high = wide or base.in_features, high or base.out_features
    linear = nn.Linear(wide, high, bias=getattr(base, "bias", None) is not None)
    linear.weight.copy_(random_normal(high, wide, seed=seed) * wide**-0.5)
    if linear.bias is not None:
        linear.bias.copy_(random_normal(high, seed=seed + 50))
    return linear.requires_grad_(requires_grad=False)


def formula_key(module: nn.Module, numbered: Collection[type] = ()) -> Hashable:
    """Key that is equal for modules of one formula, of which one is tested instead of all layers.

    It has the class, plain attributes, type of the layer in the config, shapes of own parameters, sizes of linear
    layers, and keys of the other submodules.

    Args:
        numbered: classes that depend on the number of their layer, see `depends_on_layer_number`; others ignore it.
    """
    numbers = () if type(module) in numbered else layer_number_attributes(module)
    facts = tuple(
        (name, value)
        for name, value in sorted(vars(module).items())
        if isinstance(value, int | float | str | None) and name not in numbers
    )
    config, number = getattr(module, "config", None), getattr(module, "layer_idx", None)
    layers = getattr(config, "layer_types", None)
    layer_type = layers[number] if layers and isinstance(number, int) and number < len(layers) else None
    own = [(name, one) for name, one in module._parameters.items() if one is not None]
    shapes = tuple((name, tuple(one.shape)) for name, one in own)
    parts = tuple(
        (name, formula_key(child, numbered)) for name, child in module.named_children() if not is_linear(child)
    )
    linears = tuple((name, *_size(child)) for name, child in module.named_children() if is_linear(child))
    return type(module), facts, layer_type, shapes, parts, linears


def layer_number_attributes(module: nn.Module) -> list[str]:
    """Integer attributes of a module that hold the number of a layer, by `LAYER_NUMBER_NAMES`."""
    found = [(name, value) for name, value in vars(module).items() if any(map(name.count, LAYER_NUMBER_NAMES))]
    return [name for name, value in found if isinstance(value, int) and not isinstance(value, bool)]


def depends_on_layer_number(module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> bool:
    """Whether a module computes something by the number of its layer, so that its layers are tested one by one.

    Its forward is run with and without the number: one that only finds its cache by it, and is given none, gives the
    same output.
    """
    without = copy.copy(module)
    for name in layer_number_attributes(module):
        del vars(without)[name]
    forward = type(module).forward
    try:
        return not _equal(forward(without, *args, **kwargs), forward(module, *args, **kwargs))
    except Exception:  # noqa: BLE001 - whatever a forward raises that reads an attribute it does not have
        return True


def _equal(one: object, other: object) -> bool:
    """Whether all tensors of two results are equal bit by bit."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return type(one) is type(other)


def _size(module: Any) -> tuple[int, int, bool]:
    base = getattr(module, "base_layer", module)
    return base.in_features, base.out_features, getattr(base, "bias", None) is not None
