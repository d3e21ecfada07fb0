"""Determines which models the decode loop supports; others use `model.generate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import GenerationConfig, GenerationMixin
from transformers.cache_utils import DynamicCache, DynamicLayer

from llf_core.models.mixture_of_depths import routing_of

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

# Keys of a generation config without effect on tokens, or whose meaning is covered by arguments here or by Sampling.
SUPPORTED_SETTINGS = {
    "_from_model_config",
    "bos_token_id",
    "cache_implementation",
    "do_sample",
    "eos_token_id",
    "max_length",
    "max_new_tokens",
    "pad_token_id",
    "repetition_penalty",
    "temperature",
    "top_k",
    "top_p",
    "transformers_version",
    "use_cache",
}


def causal_model(model: PreTrainedModel | PeftModel) -> PreTrainedModel:
    """The transformers model inside a PEFT model, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def unsupported(model: PreTrainedModel | PeftModel) -> str | None:
    """Reason why a model needs `model.generate`; None if the decode loop gives the same completions."""
    causal = causal_model(model)
    name = type(causal).__name__
    if not isinstance(causal, GenerationMixin) or causal.config.is_encoder_decoder:
        return f"{name} is not a decoder-only model of transformers."
    if type(causal).prepare_inputs_for_generation is not GenerationMixin.prepare_inputs_for_generation:
        return f"{name} has its own `prepare_inputs_for_generation`."
    if other_cache := _other_cache(causal):
        return other_cache
    if getattr(model, "peft_config", None) and getattr(model.active_peft_config, "is_prompt_learning", False):
        return "Its adapter prepends virtual tokens to each prompt."
    configured = _configured(causal.generation_config)
    if configured:
        return f"Its generation config sets {', '.join(configured)}."
    return None


def _other_cache(causal: PreTrainedModel) -> str | None:
    name = type(causal).__name__
    if routing_of(causal) is not None:
        return f"{name} has routed blocks (Mixture-of-Depths), which keep no cache of keys and values."
    kinds = {type(layer) for layer in DynamicCache(config=causal.config).layers} or {DynamicLayer}
    other = sorted(kind.__name__ for kind in kinds if kind is not DynamicLayer)
    return (
        f"The cache of {name} has layers of type {', '.join(other)} (a sliding window or a state)." if other else None
    )


def _configured(config: GenerationConfig) -> list[str]:
    neutral = GenerationConfig().to_dict()
    return sorted(
        key
        for key, value in config.to_dict().items()
        if key not in SUPPORTED_SETTINGS and value is not None and value is not False and value != neutral.get(key)
    )
