"""Normalization layers in float32, since half precision rounds their scales and outputs, and linear layers in FP8."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from llf_core.acceleration.patching.causal_head import causal_of
from llf_core.models.errors import ModelError
from llf_core.modifiers.modifier import Modifier

if TYPE_CHECKING:
    import torch
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


logger = logging.getLogger(__name__)
CAPABILITY = (8, 9)

MULTIPLE = 16
"""Inputs and outputs of a layer must be a multiple of this number (cuBLAS; torchao's `Float8Linear`)."""


class FP8(Modifier):
    """Replaces linear layers by torchao's FP8 layers with row-wise scales."""

    def apply(self, model: nn.Module) -> None:
        """Convert the linear layers, see `convert`; a model without weights stays unchanged."""
        causal = causal_of(model)
        if causal.device.type == "meta":  # only the parameters are counted, which stay the same
            return
        check_card(causal.device)
        logger.info(f"FP8: {convert(model)} linear layers compute in 8-bit floats.")


def check_card(device: torch.device) -> None:
    """Refuse a device without FP8 products by a ModelError."""
    import torch

    if device.type != "cuda":
        raise ModelError(
            f"fp8 is true, and the model is on {device.type}. Expected an NVIDIA GPU of compute capability 8.9 or "
            "higher. Set fp8 to false."
        )
    found = torch.cuda.get_device_capability(device)
    if found < CAPABILITY:
        raise ModelError(
            f"fp8 is true, and {torch.cuda.get_device_name(device)} has compute capability {found[0]}.{found[1]}. "
            "Expected 8.9 or higher (Ada, Hopper). Set fp8 to false."
        )


def convert(model: nn.Module) -> int:
    """Convert the linear layers of a model to torchao's FP8 layers (recipe `rowwise`); returns their number.

    Each token has its own scale: with one scale for a whole tensor, the outputs of a document would depend on the
    other documents of its batch. Weights, their names and their precision are unchanged. Left out are the output
    head, quantized layers, with an adapter all layers that are trained, and those whose inputs or outputs are not a
    multiple of 16. FP8 formats: arXiv 2209.05433.

    Args:
        model: a causal language model, perhaps wrapped by PEFT; changed in place.

    Raises:
        ModelError: no layer can be converted.
    """
    from torch import nn
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    causal = causal_of(model)
    wrapped = causal is not model and hasattr(model, "peft_config")
    head = causal.get_output_embeddings()
    chosen = {
        name
        for name, module in causal.named_modules()
        if type(module) is nn.Linear
        and module is not head
        and module.in_features % MULTIPLE == 0
        and module.out_features % MULTIPLE == 0
        and not (wrapped and module.weight.requires_grad)
    }
    if not chosen:
        raise ModelError(
            f"fp8 is true, and {type(causal).__name__} has no linear layers that can compute in 8-bit floats. Expected "
            f"unquantized layers whose inputs and outputs are multiples of {MULTIPLE}. Set fp8 to false."
        )
    recipe = Float8LinearConfig.from_recipe_name("rowwise")
    convert_to_float8_training(causal, config=recipe, module_filter_fn=lambda _, name: name in chosen)
    return len(chosen)
