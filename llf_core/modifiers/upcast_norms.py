"""Keeps normalization layers in float32, since half precision rounds their scales and outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.modifiers.modifier import Modifier

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel

NAMES = ("norm", "ln_", "layer_norm", "layernorm")
"""Parts of the names of normalization layers, over the model families of transformers."""


class UpcastNorms(Modifier):
    """Converts the parameters of normalization layers to float32; their outputs keep the dtype of their inputs."""

    def before_method(self, model: PreTrainedModel) -> None:
        """Convert the parameters before methods and optimizers see them."""
        upcast_norms(model)

    def apply(self, model: nn.Module) -> None:
        """Register hooks that convert the outputs back to the dtype of the inputs."""
        import torch

        self.hooks = [
            module.register_forward_hook(_keep_dtype)
            for name, module in model.named_modules()
            if any(_is_norm(f"{name}.{own}", parameter) for own, parameter in module.named_parameters(recurse=False))
            and next(module.parameters()).dtype == torch.float32
        ]

    def remove(self, model: nn.Module) -> None:  # noqa: ARG002 - the hooks know their modules
        """Remove the hooks; the parameters stay in float32."""
        for hook in self.hooks:
            hook.remove()


def upcast_norms(model: nn.Module) -> list[str]:
    """Convert the one-dimensional parameters of normalization layers to float32; returns their names."""
    import torch

    changed = []
    for name, parameter in model.named_parameters():
        if _is_norm(name, parameter) and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()
            changed.append(name)
    return changed


def _is_norm(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a scale or bias of a normalization layer, by its name and its one dimension."""
    layer = name.lower().split(".")[-2:]
    named = any(part in one for one in layer for part in NAMES)
    return named and parameter.ndim == 1 and parameter.is_floating_point()


def _keep_dtype(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    del module
    return output.to(args[0].dtype)
