from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from llf_core.config.rope_scaling import KEY, LONGEST, ORIGINAL, RopeScalingError, plan_scaling, tables_to_scale
from llf_core.models.architecture import auto_class
from llf_core.models.errors import ModelError, first_line

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig

    from llf_core.config.rope_scaling import RopeScaling


def scale_architecture(
    architecture: PretrainedConfig, name: str, kind: str, tokens: int, *, trust_remote_code: bool
) -> tuple[PretrainedConfig, RopeScaling | None]:
    """Scale the rotary embeddings in a model's config so that it reads texts of `tokens` tokens.

    A model of that config is made on the device `meta`, to see whether its rotary embeddings are scaled.

    Args:
        kind: value of `rope_scaling`.

    Returns:
        A changed copy of the config and its scaling; the config itself and None if it reads such texts already.

    Raises:
        ModelError: it has no rotary embeddings that transformers can scale, or is scaled in another way already.
    """
    scaled = copy.deepcopy(architecture)
    text: Any = scaled.get_text_config()
    given, longest = getattr(text, "rope_parameters", None), getattr(text, LONGEST, None)
    if not given or not isinstance(longest, int):
        raise _refused(name, kind, f"An architecture of type {text.model_type} has no rotary embeddings to scale.")
    try:
        tables = tables_to_scale(given)
        plan = plan_scaling(kind, next(iter(tables.values())), longest, tokens)
    except RopeScalingError as error:
        raise ModelError(f"{name} cannot be scaled. {error}") from error
    if plan is None:
        return architecture, None
    made = {key: plan.parameters(table) for key, table in tables.items()}
    try:
        setattr(text, LONGEST, plan.position_embeddings)
        if hasattr(text, ORIGINAL):
            setattr(text, ORIGINAL, plan.original)
        if getattr(text, "head_dim", 0) is None:  # Mixtral: transformers' formulas of yarn and dynamic need the number
            text.head_dim = text.hidden_size // text.num_attention_heads
        text.rope_parameters = made.get("", {**given, **made})
        text.validate_rope()
        unscaled = _unscaled(scaled, kind, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise _refused(name, kind, f"transformers refuses it: {first_line(error)}") from error
    if unscaled:
        raise _refused(name, kind, unscaled)
    return scaled, plan


def _refused(name: str, kind: str, why: str) -> ModelError:
    return ModelError(
        f"{KEY} is {kind}, and {name} cannot be scaled so. {why} Remove {KEY}, or choose a model with rotary "
        "embeddings, such as llama or qwen3."
    )


def _unscaled(architecture: PretrainedConfig, kind: str, *, trust_remote_code: bool) -> str:
    """Why a model of a config has rotary embeddings without its scaling; empty if all have it."""
    import torch
    from transformers import AutoModelForCausalLM

    auto = auto_class(architecture) or AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(architecture, trust_remote_code=trust_remote_code)
    rotary = [module for module in model.modules() if hasattr(module, "rope_type")]
    scaled = {type(module) for module in rotary if kind in _kinds(module)}
    if not scaled:
        return f"{type(model).__name__} ignores it."
    if any(kind not in _kinds(module) for module in rotary if type(module) in scaled):
        return f"{type(model).__name__} has several decoders, of which not all would be scaled."
    return ""


def _kinds(rotary: Any) -> list[str]:
    """Kinds of scaling of a rotary embedding, for all kinds of layers."""
    found = rotary.rope_type
    return list(found.values()) if isinstance(found, dict) else [found]


def depend_on_batch_alone(model: nn.Module) -> None:
    """Have rotary embeddings with dynamic scaling forget the texts of earlier batches, in place.

    transformers (`dynamic_rope_update`) keeps the frequencies of the longest text until one comes that is shorter than
    the original length, so the loss of a batch would depend on those before it.
    """
    for module in model.modules():
        if hasattr(module, "rope_type") and "dynamic" in _kinds(module):
            module.register_forward_pre_hook(_forget)


def _forget(module: Any, args: tuple[object, ...]) -> None:  # noqa: ARG001 - given by torch
    """Give a rotary embedding the frequencies of texts up to the original length."""
    kinds = module.rope_type
    prefixes = [f"{one}_" for one, kind in kinds.items() if kind == "dynamic"] if isinstance(kinds, dict) else [""]
    for prefix in prefixes:
        if getattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len) > module.original_max_seq_len:
            device = getattr(module, f"{prefix}inv_freq").device
            frequencies = getattr(module, f"{prefix}original_inv_freq").to(device)
            module.register_buffer(f"{prefix}inv_freq", frequencies, persistent=False)
            setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
