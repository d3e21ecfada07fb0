"""Parts of a multimodal model: encoders of images, videos and audio, projectors, and the language model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.models.errors import ModelError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from llf_core.config import RunConfig

LANGUAGE, TOWER, PROJECTOR = "language_model", "vision_tower", "multi_modal_projector"
FREEZES = {LANGUAGE: "freeze_language_model", TOWER: "freeze_vision_tower", PROJECTOR: "freeze_multi_modal_projector"}
PROJECTORS = (
    "multi_modal_projector", "mm_projector", "projector", "connector", "aligner", "merger", "embed_vision",
    "embed_audio", "vision_projection", "language_projection", "image_to_text_projection", "high_res_vision_proj",
    "qformer", "vision_resampler", "audio_tower.proj",
)  # fmt: skip
"""Names of projectors in transformers' models, also inside an encoder; all else outside the language model is encoders.

Qwen3-VL's `deepstack_merger_list` counts as its encoder, as in LLaMA-Factory.
"""


def multimodal_parts(model: PreTrainedModel) -> dict[str, str]:
    """`TOWER` or `PROJECTOR` by the path of each module outside the decoder and its head; empty for a text-only model.

    The model is not wrapped yet.
    """
    if not hasattr(model.config, "vision_config") and not hasattr(model.config, "audio_config"):
        return {}
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    inside = {id(module) for part in (decoder, head) if part is not None for module in part.modules()}
    holders = {name for name, module in model.named_modules() if any(id(one) in inside for one in module.modules())}
    return {
        name: PROJECTOR if any(f".{one}." in f".{name}." for one in PROJECTORS) else TOWER
        for name, module in model.named_modules()
        if id(module) not in inside and name not in holders
    }


def choose_parts(model: PreTrainedModel, config: RunConfig) -> None:
    """Record on a model, not wrapped yet, which of its parts are trained, before a method selects parameters.

    Raises:
        ModelError: the language model is frozen, and nothing else is trained.
    """
    trained = {part for part, key in FREEZES.items() if not getattr(config.method, key)}
    there = set(multimodal_parts(model).values())
    if LANGUAGE not in trained and not trained & there:
        has = f"has {' and '.join(sorted(there))}" if there else "is a model of text alone"
        raise ModelError(
            f"freeze_language_model is true, and nothing else is trained: {type(model).__name__} {has}. Set "
            "freeze_language_model: false, or freeze_vision_tower or freeze_multi_modal_projector to false for a part "
            "that the model has."
        )
    model.llf_trained_parts = frozenset(trained)


def frozen_modules(model: PreTrainedModel) -> list[str]:
    """Paths of the modules of the parts that stay frozen, and get no adapter; without `choose_parts`, all but language.

    Each stands for the module's own parameters: a projector inside a frozen encoder may be trained.
    """
    trained, parts = trained_parts(model), multimodal_parts(model)
    found = [name for name, part in parts.items() if part not in trained]
    if LANGUAGE in trained:
        return found
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    inside = {id(module) for part in (decoder, head) if part is not None for module in part.modules()}
    return found + [name for name, module in model.named_modules() if id(module) in inside]


def trained_parts(model: nn.Module) -> frozenset[str]:
    """Parts of a model that are trained: `LANGUAGE` alone, unless `choose_parts` has recorded others."""
    parts: frozenset[str] = getattr(model, "llf_trained_parts", frozenset((LANGUAGE,)))
    return parts
