"""How many parameters a model has, how many are trained, and which are weights of experts kept together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


EXPERT_AXES = 3
MATRIX_AXES = 2


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Counts weights once each (tied ones too) and 4-bit weights as the weights they stand for.

    Args:
        model: any module, wrapped by PEFT or not.

    Returns:
        All parameters and the trainable ones.
    """
    total = trainable = 0
    for parameter in model.parameters():
        count = parameter.numel()
        packed = getattr(parameter, "quant_state", None)
        if packed is not None:
            count = packed.shape.numel()
        total += count
        trainable += count if parameter.requires_grad else 0
    return total, trainable


def expert_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights of experts that a model keeps together, `[experts, in, out]` or `[experts, out, in]`, by their paths.

    They are known by their first axis, which is a number of experts that their module speaks of.

    Args:
        model: wrapped or not.
    """
    return {
        f"{path}.{name}": parameter
        for path, module in model.named_modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim == EXPERT_AXES and parameter.shape[0] in _expert_counts(module)
    }


def expert_matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """Weights of all experts that a model keeps as one matrix, `[experts * out, in]`, by their paths, as DBRX does.

    Another module slices them, so PEFT can put no adapter on them.

    Args:
        model: wrapped or not.
    """
    return {
        f"{path}.{name}": parameter
        for path, module in model.named_modules()
        if "Expert" in type(module).__name__
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim == MATRIX_AXES
        and any(1 < count < parameter.shape[0] and parameter.shape[0] % count == 0 for count in _expert_counts(module))
    }


def _expert_counts(module: nn.Module) -> set[int]:
    return {value for name, value in vars(module).items() if "expert" in name and type(value) is int}
