"""Counts parameters and finds expert weights that are stored in one parameter."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

EXPERT_DIMS = 3
MATRIX_DIMS = 2


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Count the parameters of a model. Tied weights count once; 4-bit weights count unpacked.

    `numel` alone would halve a quantized model, since two 4-bit weights are stored in one byte.

    Args:
        model: any module, wrapped by PEFT or not.

    Returns:
        Number of parameters, and number of trainable parameters.
    """
    total = trainable = 0
    for parameter in model.parameters():
        count = parameter_size(parameter)
        total += count
        trainable += count if parameter.requires_grad else 0
    return total, trainable


def parameter_size(parameter: nn.Parameter) -> int:
    """Number of values of a parameter of any shape; 4-bit weights count unpacked, since a byte stores two of them.

    Args:
        parameter: of a model, quantized by bitsandbytes or not.
    """
    packed = getattr(parameter, "quant_state", None)
    return int(parameter.numel() if packed is None else packed.shape.numel())


def expert_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Find expert weights that are stored in one parameter, `[experts, in, out]` or `[experts, out, in]`.

    Adapters and quantization, which work on linear layers, need to know them. They are recognized by their first
    dimension, which equals a number of experts among the attributes of their module.

    Args:
        model: wrapped or not.

    Returns:
        Parameters by path.
    """
    return {
        path: parameter
        for path, module, parameter in _own_parameters(model)
        if parameter.ndim == EXPERT_DIMS and parameter.shape[0] in _expert_counts(module)
    }


def expert_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """Find weights of all experts that are stored as one matrix, `[experts * out, in]`, as in DBRX.

    Another module slices them, so PEFT cannot put an adapter on them.

    Args:
        model: wrapped or not.

    Returns:
        Parameters by path.
    """
    return {
        path: parameter
        for path, module, parameter in _own_parameters(model)
        if "Expert" in type(module).__name__
        and parameter.ndim == MATRIX_DIMS
        and any(1 < count < parameter.shape[0] and parameter.shape[0] % count == 0 for count in _expert_counts(module))
    }


def _own_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    """Path of each parameter, the module that holds it, and the parameter."""
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            yield f"{path}.{name}", module, parameter


def _expert_counts(module: nn.Module) -> set[int]:
    return {value for name, value in vars(module).items() if "expert" in name and type(value) is int}
