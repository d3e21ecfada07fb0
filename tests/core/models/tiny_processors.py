"""A tiny processor of any type that takes pictures: its parts as transformers maps them, around the tiny tokenizer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoVideoProcessor, PreTrainedTokenizerFast
from transformers.models.auto.processing_auto import processor_class_from_name
from transformers.utils import is_torchvision_available

from tests.tiny import PARTS, tiny_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

NAMED = {
    "image_token": "<|image_pad|>",
    "boi_token": "<|vision_start|>",
    "eoi_token": "<|vision_end|>",
    "video_token": "<|video_pad|>",
    "audio_token": "<|audio_pad|>",
    "boa_token": "<|audio_start|>",
    "eoa_token": "<|audio_end|>",
    "image_wrapper_token": "<|image token|>",
    "eof_token": "<|extra_201|>",
}
"""Tokens that a tokenizer has by a name."""
OTHERS = ("<imgpad>", "|SPEAKER|", "|NEWLINE|", "<|python_tag|>", "<|video|>")
"""Tokens that processors look for by their text."""
IDS = {
    "image_token_id": "image_token",
    "image_token_index": "image_token",
    "video_token_id": "video_token",
    "audio_token_id": "audio_token",
    "boi_token_id": "boi_token",
    "boi_token_index": "boi_token",
    "eoi_token_id": "eoi_token",
    "eoi_token_index": "eoi_token",
    "boa_token_id": "boa_token",
    "eoa_token_id": "eoa_token",
    "eoa_token_index": "eoa_token",
    "vision_start_token_id": "boi_token",
    "vision_end_token_id": "eoi_token",
}
"""Keys of a model's config, and which token they are the number of."""


def tiny_processor(kind: str, config: Any) -> Any:
    """The processor of a model type; the numbers of its tokens are set in the model's config.

    Args:
        kind: the model type.
        config: of the model, changed in place.

    Raises:
        ImportError: the processor needs a package that is not installed.
    """
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    plain = tiny_tokenizer(PARTS)
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=plain.backend_tokenizer,
        bos_token=plain.bos_token,
        eos_token=plain.eos_token,
        pad_token=plain.pad_token,
        unk_token=plain.unk_token,
        chat_template=PARTS,
        clean_up_tokenization_spaces=False,
        extra_special_tokens=NAMED,
    )
    tokenizer.add_tokens(list(OTHERS), special_tokens=True)
    for key, name in IDS.items():
        if isinstance(getattr(config, key, None), int):
            setattr(config, key, getattr(tokenizer, f"{name}_id"))
    made: Any = processor_class_from_name(PROCESSOR_MAPPING_NAMES[kind])
    parts: dict[str, Any] = {"tokenizer": tokenizer}
    for name, auto in (
        ("image_processor", AutoImageProcessor),
        ("video_processor", AutoVideoProcessor),
        ("feature_extractor", AutoFeatureExtractor),
    ):
        if name in made.get_attributes():
            parts[name] = _part(auto, type(config))
    processor = made(**parts)
    processor.chat_template = PARTS
    return processor


def name_processor(kind: str, folder: Path) -> None:
    """Writes of a processor what tells transformers which one it is, and which are its parts."""
    from transformers.models.auto import feature_extraction_auto, image_processing_auto, processing_auto

    made = {"processor_class": processing_auto.PROCESSOR_MAPPING_NAMES[kind]}
    images: Any = image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES.get(kind)
    parts = {
        "image_processor_type": next(iter(images.values())) if isinstance(images, dict) else images,
        "feature_extractor_type": feature_extraction_auto.FEATURE_EXTRACTOR_MAPPING_NAMES.get(kind),
    }
    (folder / "processor_config.json").write_text(json.dumps(made))
    told = made | {key: value for key, value in parts.items() if value}
    (folder / "preprocessor_config.json").write_text(json.dumps(told))


def _part(auto: Any, config: Any) -> Any:
    from transformers.models.auto import feature_extraction_auto, image_processing_auto, video_processing_auto

    if auto is AutoFeatureExtractor:
        return feature_extraction_auto.FEATURE_EXTRACTOR_MAPPING[config]()
    mapping: Any = (
        image_processing_auto.IMAGE_PROCESSOR_MAPPING
        if auto is AutoImageProcessor
        else video_processing_auto.VIDEO_PROCESSOR_MAPPING
    )
    found = mapping[config]
    if isinstance(found, dict):
        order = ("torchvision", "pil") if is_torchvision_available() else ("pil",)
        found = next((found[one] for one in order if found.get(one) is not None), None)
    if found is None:
        raise ImportError(f"{config.__name__} needs torchvision")
    return found()
