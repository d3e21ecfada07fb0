"""Gradient checkpointing (arXiv 1604.06174), which recomputes activations in the backward pass."""

from __future__ import annotations

from dataclasses import dataclass
from types import MethodType
from typing import TYPE_CHECKING

from llf_core.config.registry import method_of
from llf_core.estimate.devices import MEMORY_SHARE
from llf_core.models.architecture import LANGUAGE, trained_parts
from llf_core.models.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel
    from transformers.modeling_layers import GradientCheckpointingLayer

    from llf_core.config import RunConfig
    from llf_core.estimate import Forecast


@dataclass(frozen=True)
class CheckpointingChoice:
    """Whether gradient checkpointing is on, and a sentence that says why."""

    on: bool
    reason: str


def choose_checkpointing(
    config: RunConfig, model: PreTrainedModel, baseline: Forecast | None, checkpointed: Forecast | None, available: int
) -> CheckpointingChoice:
    """Decide by the config, or by the memory forecast where the config leaves it open.

    Checkpointing costs one more forward pass, so it is off where a step without it fits in `MEMORY_SHARE` of the free
    memory.

    Args:
        baseline: memory forecast of a step without checkpointing; None if the model's sizes are unknown.
        available: free bytes, with the model loaded.

    Raises:
        ModelError: checkpointing is requested, and the architecture does not support it.
    """
    requested = config.training.gradient_checkpointing
    off = "as set by disable_gradient_checkpointing" if config.model.disable_gradient_checkpointing else ""
    if method_of(config).trains_cache(config):
        off = "since it would compute the layers without the trained keys and values"
    if off:
        return CheckpointingChoice(on=False, reason=f"Gradient checkpointing is off, {off}.")
    if requested and not model.supports_gradient_checkpointing:
        raise ModelError(
            f"{type(model).__name__} does not support gradient checkpointing. Set gradient_checkpointing: false."
        )
    if requested is not None:
        return CheckpointingChoice(
            requested, f"Gradient checkpointing is {_word(on=requested)}, as set by gradient_checkpointing."
        )
    if baseline is None or checkpointed is None:
        return CheckpointingChoice(
            on=False, reason=("Gradient checkpointing is off: the sizes of the model are unknown.")
        )
    need = (
        f"a step needs about {_gigabytes(baseline.step)} GB in addition to the model, and {_gigabytes(available)} GB "
        "are free"
    )
    if baseline.step <= MEMORY_SHARE * available:
        return CheckpointingChoice(on=False, reason=f"Gradient checkpointing is off: {need}.")
    if not model.supports_gradient_checkpointing:
        return CheckpointingChoice(
            on=False, reason=f"{type(model).__name__} does not support gradient checkpointing, although {need}."
        )
    with_it = f"with it about {_gigabytes(checkpointed.step)} GB"
    if checkpointed.step > MEMORY_SHARE * available:
        with_it += ", which may not be enough: lower per_device_train_batch_size or cutoff_len"
    return CheckpointingChoice(on=True, reason=f"Gradient checkpointing is on: {need}; {with_it}.")


def enable_checkpointing(model: PreTrainedModel, config: RunConfig) -> None:
    """Enable checkpointing, after the method is applied, in every layer that the backward pass reaches.

    Reentrant checkpointing finds gradients only through the input of a layer, so that of the first trained layer is
    made to require gradients, and no input below it.
    """
    options = {"use_reentrant": config.model.use_reentrant_gc} | (config.training.gradient_checkpointing_kwargs or {})
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    if hasattr(base, "activation_checkpointing_enable"):  # its name in newer transformers
        base.activation_checkpointing_enable(options)
    else:
        base.gradient_checkpointing_enable(options)
    # transformers has just made the embeddings' output require gradients, so the pass would reach all layers.
    base.disable_input_require_grads()
    layers = _layers(base)
    trained = next((place for place, layer in enumerate(layers) if _is_trained(layer)), None)
    if trained_parts(base) - {LANGUAGE}:  # gradients of an encoder or projector pass through the language model
        trained = 0
    for layer in layers[:trained]:
        layer.gradient_checkpointing = False
    if options["use_reentrant"] and trained:
        layers[trained - 1].register_forward_hook(_require_gradients)
    elif options["use_reentrant"]:
        base.enable_input_require_grads()


def _layers(model: nn.Module) -> list[GradientCheckpointingLayer]:
    """Layers that transformers checkpoints one by one, if any."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def _is_trained(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())


def _require_gradients(_: nn.Module, __: object, output: Tensor | tuple[Tensor, ...]) -> None:
    hidden = output[0] if isinstance(output, tuple) else output
    hidden.requires_grad_()


def _word(*, on: bool) -> str:
    return "on" if on else "off"


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f}"


def keep_frozen_statistics(model: nn.Module) -> int:
    """Have batch and instance normalization layers without trained parameters compute as in evaluation, always.

    In training they use the statistics of the batch, and change their running statistics, which no adapter contains.
    Returns the number of these layers.
    """
    from torch.nn.modules.batchnorm import _NormBase

    found = [
        module
        for module in model.modules()
        if isinstance(module, _NormBase) and not any(one.requires_grad for one in module.parameters())
    ]
    for module in found:
        module.train = MethodType(_stay, module)  # type: ignore[method-assign]
        module.eval()
    return len(found)


def _stay(self: nn.Module, mode: bool = True) -> nn.Module:  # noqa: ARG001 - the signature of `nn.Module.train`
    return type(self).train(self, mode=False)
