"""Forecasts the memory of a training step for a loaded model."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from llf_core.config.registry import optimizer_of
from llf_core.config.weight_shapes import LAYER
from llf_core.estimate import TrainingPass, architecture, available_memory, training_memory
from llf_core.estimate.model_shapes import encoder, is_multimodal, language_weights
from llf_core.estimate.strategies import Shares
from llf_core.models.adapter_loading import ROWS
from llf_core.models.architecture import TOWER, trained_parts
from llf_core.models.checksums import count_parameters, scale_bytes, stored_bytes, unpacked_shape
from llf_core.models.quantize import is_quantized

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn
    from transformers import PreTrainedModel

    from llf_core.config import RunConfig
    from llf_core.config.weight_shapes import Shapes
    from llf_core.estimate import Forecast
    from llf_core.models.device import DevicePlan

PROMPT_KEY = "prompt_encoder."


def forecast_step(  # noqa: PLR0913 - what a step is made of
    model: PreTrainedModel,
    config: RunConfig,
    plan: DevicePlan,
    *,
    tokens: int,
    longest: int,
    fast: bool,
    patches: int = 0,
    varies: bool = False,
) -> tuple[Forecast, Forecast] | None:
    """Forecast the peak bytes of a training step, without and with gradient checkpointing, after the method is applied.

    None for a model in which no layers are found. See `llf_core.estimate.training_memory`.

    Args:
        tokens: of the largest micro-batch, including padding.
        longest: tokens of its longest example.
        patches: patches of the images of the micro-batch, which are the positions of an encoder.
        varies: whether batches have different numbers of tokens.
    """
    settings = model.config.to_dict()
    sees, base = is_multimodal(settings), getattr(model, "get_base_model", lambda: model)()
    shapes = base_shapes(model)
    sizes = architecture(language_weights(shapes, settings), settings)
    if sizes is None:
        return None
    own = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    inside = {name: int(found.group(1)) for name in own if (found := LAYER.search(name))}
    ranks = [parameter.shape[0] for name, parameter in own.items() if ".lora_A." in name]
    step = TrainingPass(
        tokens=tokens,
        longest=longest,
        width=4 if (plan.autocast or plan.dtype) == "float32" else 2,
        autocast=plan.autocast is not None and not optimizer_of(config).keeps_masters,
        trains_base=any(not _in_adapter(model, name) for name in inside),
        rank=max(ranks, default=0),
        fast=fast,
        patches=patches,
        varies=varies,
        trains_encoder=is_multimodal(settings)
        and TOWER in trained_parts(getattr(model, "get_base_model", lambda: model)()),
        chunks_head=hasattr(base, "_llf_decoder"),
        on_cpu=plan.device != "cuda",
        first=_first_trained(model, inside.values(), sizes.layers),
        tied=sizes.tied and _trains_embedding(model),
    )
    weights = stored_bytes(model)
    width = max((one.element_size() for one in own.values()), default=4)
    optimizer = optimizer_of(config).memory_for(config, {name: tuple(one.shape) for name, one in own.items()}, width)
    plain, checkpointed = (
        training_memory(
            sizes,
            dataclasses.replace(step, checkpointing=checkpointing),
            weights=weights,
            trained=count_parameters(model)[1],
            optimizer=optimizer,
            gradient_width=width,
            device=plan.device,
            quantized=is_quantized(base),
            rows=any(ROWS in name for name in own),
            encoder=encoder(shapes) if sees else None,
            shares=Shares(config.launch.strategy, config.launch.ranks, config.launch.num_nodes),
            parameters=count_parameters(model)[0],
            scales=scale_bytes(model),
        )
        for checkpointing in (False, True)
    )
    return plain, checkpointed


def _trains_embedding(model: PreTrainedModel) -> bool:
    embedding = model.get_input_embeddings()
    return embedding is not None and embedding.weight.requires_grad


def free_memory(device: str) -> int:
    """Bytes that a training step can still allocate on `cuda`, `mps` or `cpu`.

    On CUDA, memory that torch has reserved and does not use counts as free.
    """
    import torch

    if device == "cuda":
        free, _ = torch.cuda.mem_get_info()
        return int(free) + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    if device == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return available_memory()


def _in_adapter(model: nn.Module, name: str) -> bool:
    """Whether a parameter is a weight of an adapter, of any type that PEFT has."""
    if not hasattr(model, "peft_config"):
        return False
    from peft.mapping import PEFT_TYPE_TO_PREFIX_MAPPING

    settings: Any = model.peft_config
    prefixes = tuple(f".{PEFT_TYPE_TO_PREFIX_MAPPING[one.peft_type]}" for one in settings.values())
    return name.startswith(PROMPT_KEY) or any(prefix in name for prefix in prefixes)


def base_shapes(model: nn.Module) -> Shapes:
    """Shapes of a model's own weights by name, without adapters and copies that are trained with them."""
    shapes: Shapes = {}
    for name, parameter in model.named_parameters():
        if not _in_adapter(model, name) and ".modules_to_save." not in name and ROWS not in name:
            shapes[name.replace(".W_q", ".weight")] = unpacked_shape(parameter)
    return shapes


def _first_trained(model: PreTrainedModel, trained: Iterable[int], layers: int) -> int:
    """First layer of the backward pass: where the first weight is trained, or all below a prompt."""
    embedded = any(parameter.requires_grad for parameter in model.get_input_embeddings().parameters())
    return 0 if embedded or hasattr(model, "prompt_encoder") else min(trained, default=layers)
