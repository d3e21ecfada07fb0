"""Gradient checkpointing: activations are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.models.errors import ModelError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from llf_core.config import RunConfig
    from llf_core.estimate import Forecast

SHARE = 0.9  # of the free memory that a forecast may fill: it is no measurement


@dataclass(frozen=True)
class Checkpointing:
    """Whether activations are computed again, and why.

    Attributes:
        on: whether they are.
        reason: one sentence for a person.
    """

    on: bool
    reason: str


def choose_checkpointing(
    config: RunConfig, model: PreTrainedModel, plain: Forecast | None, thrifty: Forecast | None, available: int
) -> Checkpointing:
    """Decides by the config, and where that leaves it open by the forecast.

    Args:
        config: `gradient_checkpointing` and `disable_gradient_checkpointing`.
        model: the loaded model.
        plain: the forecast of a step without checkpointing; None where the model's sizes are not known.
        thrifty: the same with it.
        available: bytes that can still be taken, the model being loaded.

    Raises:
        ModelError: it is asked for, and the architecture cannot do it.
    """
    asked = config.training.gradient_checkpointing
    if config.model.disable_gradient_checkpointing:
        return Checkpointing(on=False, reason="Gradient checkpointing is off, as disable_gradient_checkpointing asks.")
    if asked and not model.supports_gradient_checkpointing:
        raise ModelError(
            f"{type(model).__name__} does not support gradient checkpointing. Set gradient_checkpointing: false."
        )
    if asked is not None:
        return Checkpointing(asked, f"Gradient checkpointing is {_word(on=asked)}, as gradient_checkpointing asks.")
    if plain is None or thrifty is None:
        return Checkpointing(on=False, reason="Gradient checkpointing is off: the model's sizes are not known.")
    need = f"a step needs about {_gigabytes(plain.step)} GB beside the model, and {_gigabytes(available)} GB are free"
    if plain.step <= SHARE * available:
        return Checkpointing(on=False, reason=f"Gradient checkpointing is off: {need}.")
    if not model.supports_gradient_checkpointing:
        return Checkpointing(on=False, reason=f"{type(model).__name__} has no gradient checkpointing, though {need}.")
    with_it = f"with it about {_gigabytes(thrifty.step)} GB"
    if thrifty.step > SHARE * available:
        with_it += ", which may not suffice: lower per_device_train_batch_size or cutoff_len"
    return Checkpointing(on=True, reason=f"Gradient checkpointing is on: {need}; {with_it}.")


def enable_checkpointing(model: PreTrainedModel, config: RunConfig) -> None:
    """Switches it on in every layer that the backward pass reaches.

    Frozen layers below the first trained one keep nothing anyway. The reentrant form finds gradients only through
    a layer's input, so the input of the first trained layer is made to require them, and no layer's below it.

    Args:
        model: after its method, since a PEFT model that is wrapped later would make the embeddings' output require
            gradients, and so bring the frozen layers back into the backward pass.
        config: for the form and its options.
    """
    options = {"use_reentrant": config.model.use_reentrant_gc} | (config.training.gradient_checkpointing_kwargs or {})
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    if hasattr(base, "activation_checkpointing_enable"):  # its name in newer transformers
        base.activation_checkpointing_enable(options)
    else:
        base.gradient_checkpointing_enable(options)
    # transformers has just made the embeddings' output require gradients, which brings all layers back into the pass.
    base.disable_input_require_grads()
    layers = _layers(base)
    trained = next((place for place, layer in enumerate(layers) if _is_trained(layer)), None)
    for layer in layers[:trained]:
        layer.gradient_checkpointing = False
    if options["use_reentrant"] and trained:
        layers[trained - 1].register_forward_hook(_require_gradients)
    elif options["use_reentrant"]:
        base.enable_input_require_grads()


def _layers(model: nn.Module) -> list[Any]:
    """The layers that transformers computes again one by one; none for architectures that do it themselves."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _require_gradients(_: nn.Module, __: Any, output: Any) -> None:
    hidden = output[0] if isinstance(output, tuple) else output
    hidden.requires_grad_()


def _word(*, on: bool) -> str:
    return "on" if on else "off"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f}"
