"""Counts parameters and their bytes, and finds quantized weights and fused experts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

QUANTIZED_TENSORS = {"torchao", "optimum"}
"""Packages whose quantized tensors report the dtype they are unpacked to."""
PACKED_NAMES = ("W_q", "qweight", "codes", "weight")
"""Names of the packed weight in layers of HQQ, of GPTQ and AWQ, of AQLM, and of others."""
EXPERT_DIMS = 3
MATRIX_DIMS = 2


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Number of all and of trained parameters. Tied weights count once; 4-bit weights count unpacked."""
    total = trainable = 0
    for parameter in model.parameters():
        count = parameter_size(parameter)
        total += count
        trainable += count if parameter.requires_grad else 0
    return total, trainable


def parameter_size(parameter: nn.Parameter) -> int:
    """Number of values of a parameter of any shape, quantized or not; packed weights count unpacked."""
    return math.prod(unpacked_shape(parameter))


def unpacked_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """Shape of a weight; of a packed one, its shape before packing."""
    packed = getattr(parameter, "quant_state", None)
    return tuple(getattr(parameter, "unpacked_shape", parameter.shape) if packed is None else packed.shape)


def is_packed(tensor: Tensor) -> bool:
    """Whether a weight of any shape is quantized, so that it cannot be read, cast or changed like ordinary numbers.

    Integers and truth values count as quantized, since an ordinary weight has none.
    """
    own_class = type(tensor).__module__.partition(".")[0] in QUANTIZED_TENSORS
    return own_class or not tensor.is_floating_point() or getattr(tensor, "quant_state", None) is not None


def packed_weight(module: nn.Module) -> nn.Parameter | None:
    """The weight of any shape of a linear layer of any quantizer, packed or not; None if a module has none."""
    found = (getattr(module, name, None) for name in PACKED_NAMES)
    return next((one for one in found if one is not None), None)


def is_plain_linear(module: object) -> TypeGuard[nn.Linear]:
    """Whether any object is a linear layer of torch with an ordinary tensor as weight, which may be read directly."""
    from torch import nn

    return type(module) is nn.Linear and not is_packed(module.weight)


def is_quantized_layer(module: nn.Module) -> bool:
    """Whether a module is a linear layer of a quantizer that is no subclass of `nn.Linear`, such as HQQ's or GPTQ's."""
    if not (hasattr(module, "in_features") and hasattr(module, "out_features")) or hasattr(module, "base_layer"):
        return False
    weight = packed_weight(module)
    return weight is not None and not weight.is_floating_point()


def stored_bytes(model: nn.Module) -> int:
    """Bytes of the parameters of a model as they are stored, with the scales of quantized ones."""
    total = sum(_tensor_bytes(parameter) for parameter in model.parameters())
    for module in model.modules():
        meta = getattr(module, "meta", None)  # HQQ keeps its scales there
        total += sum(one.nbytes for one in meta.values() if hasattr(one, "nbytes")) if isinstance(meta, dict) else 0
    return total


def scale_bytes(model: nn.Module) -> int:
    """Bytes of the scales of weights that bitsandbytes has quantized to 4 bits."""
    return sum(map(_scale_bytes, model.parameters()))


def _tensor_bytes(tensor: Any) -> int:
    if type(tensor).__module__.partition(".")[0] in QUANTIZED_TENSORS:
        names, _ = tensor.__tensor_flatten__()
        return sum(_tensor_bytes(getattr(tensor, name)) for name in names)
    return int(tensor.nbytes) + _scale_bytes(tensor)


def _scale_bytes(tensor: Any) -> int:
    state = getattr(tensor, "quant_state", None)
    scales = [] if state is None else [state.absmax, *((state.state2.absmax,) if state.nested else ())]
    return sum(int(one.nbytes) for one in scales)


def expert_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Find expert weights that are stored in one parameter, `[experts, in, out]` or `[experts, out, in]`.

    Their first dimension equals a number of experts among the attributes of their module.
    """
    return {
        path: parameter
        for path, module, parameter in _own_parameters(model)
        if parameter.ndim == EXPERT_DIMS and parameter.shape[0] in _expert_counts(module)
    }


def expert_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """Find weights of all experts that are stored as one matrix, `[experts * out, in]`, as in DBRX.

    Another module slices them, so PEFT cannot put an adapter on them.
    """
    return {
        path: parameter
        for path, module, parameter in _own_parameters(model)
        if "Expert" in type(module).__name__
        and parameter.ndim == MATRIX_DIMS
        and any(1 < count < parameter.shape[0] and parameter.shape[0] % count == 0 for count in _expert_counts(module))
    }


def _own_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            yield f"{path}.{name}", module, parameter


def _expert_counts(module: nn.Module) -> set[int]:
    return {value for name, value in vars(module).items() if "expert" in name and type(value) is int}
