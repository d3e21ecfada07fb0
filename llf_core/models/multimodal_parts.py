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
"""Key that freezes each part."""
PROJECTORS = (
    "multi_modal_projector", "mm_projector", "projector", "connector", "aligner", "merger", "embed_vision",
    "embed_audio", "vision_projection", "language_projection", "image_to_text_projection", "high_res_vision_proj",
    "qformer", "vision_resampler", "audio_tower.proj",
)  # fmt: skip
"""Names of projectors in transformers' models, also inside an encoder; the other modules outside the language model
are encoders. Qwen3-VL's `deepstack_merger_list` counts as its encoder, as in LLaMA-Factory."""


def multimodal_parts(model: PreTrainedModel) -> dict[str, str]:
    """Find the encoders and projectors of a multimodal model, which `freeze_vision_tower` and its like select.

    Args:
        model: a `PreTrainedModel`, not yet wrapped.

    Returns:
        `TOWER` or `PROJECTOR` by the path of each module outside the decoder and its head; empty for a text-only model.
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
    """Record on a model which of its parts are trained. A method calls it before it selects parameters.

    Args:
        model: a `PreTrainedModel`, not yet wrapped.
        config: for `freeze_vision_tower`, `freeze_multi_modal_projector` and `freeze_language_model`.

    Raises:
        ModelError: the language model is frozen, and the model has no part besides that is trained.
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
    """List the modules of the parts that stay frozen, and get no adapter.

    Encoders have modules of the same names as the language model, by which targets of adapters are found.

    Args:
        model: a `PreTrainedModel`, not yet wrapped; without `choose_parts`, all encoders and projectors are frozen.

    Returns:
        Paths of modules. Each stands for the parameters of that module itself: a projector inside a frozen encoder may
        be trained, whose path is not among them. Empty for a text-only model, unless its language model is frozen.
    """
    trained, parts = trained_parts(model), multimodal_parts(model)
    found = [name for name, part in parts.items() if part not in trained]
    if LANGUAGE in trained:
        return found
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    inside = {id(module) for part in (decoder, head) if part is not None for module in part.modules()}
    return found + [name for name, module in model.named_modules() if id(module) in inside]


def trained_parts(model: nn.Module) -> frozenset[str]:
    """Parts of a model that are trained: `LANGUAGE` alone, unless `choose_parts` has recorded others.

    Methods freeze the other parts, and gradient checkpointing must reach the ones that are trained.
    """
    parts: frozenset[str] = getattr(model, "llf_trained_parts", frozenset((LANGUAGE,)))
    return parts
