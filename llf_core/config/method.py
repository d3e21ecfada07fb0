from __future__ import annotations

from llf_core.config.option import Names, Section, option


class MethodSection(Section):
    """Fine-tuning method."""

    finetuning_type: str = option(
        "lora",
        label="Method",
        help="Which parameters are trained: an adapter (`lora`), some layers (`freeze`) or all (`full`).",
        choices_from="method",
        level="basic",
        source="LLaMA-Factory",
    )
    additional_target: Names | None = option(
        None,
        unset="none",
        label="Modules trained in full",
        help="Names of further modules to train in full and save with the adapter, such as `embed_tokens`.",
        source="LLaMA-Factory",
        method_trait="adapter",
    )
    create_new_adapter: bool = option(
        False,
        label="Start a new adapter",
        help="Merges every adapter of `adapter_name_or_path` into the model and trains a new one.",
        source="LLaMA-Factory",
        method_trait="adapter",
    )
    freeze_vision_tower: bool = option(
        True,
        label="Freeze vision tower",
        help="Leaves the encoders of images, videos and audio of a multimodal model unchanged.",
        source="LLaMA-Factory",
    )
    freeze_multi_modal_projector: bool = option(
        True,
        label="Freeze projector",
        help="Leaves the layers between the encoders and the language model of a multimodal model unchanged.",
        source="LLaMA-Factory",
    )
    freeze_language_model: bool = option(
        False,
        label="Freeze language model",
        help="Leaves the language model of a multimodal model unchanged, to train its encoders or projector alone.",
        source="LLaMA-Factory",
    )
