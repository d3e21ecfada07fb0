"""A tiny processor of any type that takes images or sound: its parts as transformers maps them, and the tokenizer."""

from __future__ import annotations

import inspect
import json
import re
from typing import TYPE_CHECKING, Any

from transformers import (
    CONFIG_MAPPING,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoVideoProcessor,
    PreTrainedTokenizerFast,
    ProcessorMixin,
)
from transformers.models.auto.processing_auto import processor_class_from_name
from transformers.utils import is_torchvision_available

from tests.core.models.shown_media import LONGEST
from tests.core.models.tiny_multimodal import HEARD_BY, OTHER_NAMES, PROCESSORS, USED_BY
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
OWN_NAMES = {
    "CohereCompassProcessor": {"image_token": "<|IMAGE_PAD|>", "video_token": "<|VIDEO_PAD|>"},
    "MiniMaxM3VLProcessor": {"image_token": "]<]image[>[", "video_token": "]<]video[>["},
}
"""The same of single processors, which write these texts themselves."""
BORDERED = {"HunYuanVLProcessor"}
"""Processors that want the borders of an image to be in the text."""
OTHERS = (
    "<imgpad>",
    "|SPEAKER|",
    "|NEWLINE|",
    "<|python_tag|>",
    "<|video|>",
    "<IMG_START>",
    "<IMG_ATOM>",
    "<IMG_GRID>",
    "<IMG_END>",
)
"""Tokens that processors look for by their text."""
PLACEHOLDERS = {"Molmo2Processor": "<im_patch>", "Ovis2Processor": "<IMG_ATOM>"}
"""Tokens in the place of an image that a processor writes instead of its `image_token`."""
IDS = {
    "image_token_index": "image_token",
    "video_token_index": "video_token",
    "audio_token_index": "audio_token",
    "boi_token_index": "boi_token",
    "eoi_token_index": "eoi_token",
    "eoa_token_index": "eoa_token",
    "vision_start_token_id": "boi_token",
    "vision_end_token_id": "eoi_token",
    "audio_start_token_id": "boa_token",
    "audio_end_token_id": "eoa_token",
}
"""Keys of a model's config, and which token they are the number of, where the name is another one."""
PATCHES = ("patch_size", "temporal_patch_size")
"""Keys of a vision model's config that its image processor has too."""
BY_NAME = re.compile(r'tokenizer\.(\w+_token)\b(?! *\()|tokenizer, "(\w+_token)"')
BY_TEXT = re.compile(r'"(<[^<>" \n]+>|\[[A-Z_]+\])"')
"""Tokens in the code of a processor: by the name that its tokenizer has for them, and by their text."""


def tiny_processor(kind: str, config: Any) -> Any:
    """The processor of a model type; the numbers of its tokens are set in the model's config.

    Args:
        kind: the model type.
        config: of the model, changed in place.

    Raises:
        ImportError: the processor needs a package that is not installed.
    """
    made: Any = processor_class_from_name(processor_name(kind))
    if not isinstance(made, type) or not issubclass(made, ProcessorMixin):
        made()  # transformers' stand-in for a class whose packages are not installed says so
    tokenizer = _tokenizer(made)
    _number_tokens(config, tokenizer)
    config.get_text_config().max_position_embeddings = LONGEST
    parts: dict[str, Any] = {"tokenizer": tokenizer}
    given = PROCESSORS.get(kind, {})
    for name, auto in (
        ("image_processor", AutoImageProcessor),
        ("video_processor", AutoVideoProcessor),
        ("feature_extractor", AutoFeatureExtractor),
        ("audio_processor", AutoFeatureExtractor),
    ):
        if name in made.get_attributes():
            by = HEARD_BY.get(kind) if auto is AutoFeatureExtractor else None
            by = by or USED_BY.get(kind)
            of = CONFIG_MAPPING[by] if by else type(config)
            parts[name] = _part(auto, of, _mels(config))
            for key, value in (_sizes(parts[name], config) | given.get(name, {})).items():
                setattr(parts[name], key, value)
    for name in made.get_attributes():
        if name.endswith("_tokenizer"):  # of another part of the model
            parts[name] = tiny_tokenizer()
    processor = made(**parts, **_arguments(made, config, given))
    _number_placeholders(config, processor, tokenizer)
    processor.chat_template = _template(processor)
    return processor


def processor_name(kind: str) -> str:
    """The processor class of a model type."""
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    return str(PROCESSOR_MAPPING_NAMES.get(kind) or OTHER_NAMES.get(kind) or PROCESSOR_MAPPING_NAMES[USED_BY[kind]])


def _tokenizer(made: Any) -> Any:
    plain = tiny_tokenizer(PARTS)
    code = "".join(inspect.getsource(one) for one in made.__mro__ if ".models." in one.__module__)
    names = {name for found in BY_NAME.findall(code) for name in found if name and not hasattr(plain, name)}
    tokenizer: Any = PreTrainedTokenizerFast(
        tokenizer_object=plain.backend_tokenizer,
        bos_token=plain.bos_token,
        eos_token=plain.eos_token,
        pad_token=plain.pad_token,
        unk_token=plain.unk_token,
        chat_template=PARTS,
        clean_up_tokenization_spaces=False,
        extra_special_tokens=NAMED
        | {name: f"<|{name}|>" for name in sorted(names - set(NAMED))}
        | OWN_NAMES.get(made.__name__, {}),
    )
    tokenizer.add_tokens([*OTHERS, *sorted(set(BY_TEXT.findall(code)))], special_tokens=True)
    return tokenizer


def _number_tokens(config: Any, tokenizer: Any) -> None:
    for key in vars(config):
        name = IDS.get(key, key.removesuffix("_id"))
        if key.endswith(("_token_id", "_token_index")) and isinstance(getattr(config, key), int):
            setattr(config, key, getattr(tokenizer, f"{name}_id", None) or getattr(config, key))


def _number_placeholders(config: Any, processor: Any, tokenizer: Any) -> None:
    """Sets the numbers of the placeholders, of which the text of some processors has others than the tokenizer's."""
    for medium in ("image", "audio", "video"):
        sign = getattr(processor, f"{medium}_token", None)
        if sign is None or sign == tokenizer.boi_token:  # which the processor of Gemma 3 replaces by the placeholders
            continue
        for key in (f"{medium}_token_id", f"{medium}_token_index"):
            if isinstance(getattr(config, key, None), int):
                number = getattr(processor, f"{medium}_token_id", None)
                if written := PLACEHOLDERS.get(type(processor).__name__):
                    number = tokenizer.convert_tokens_to_ids(written)
                setattr(config, key, number or tokenizer.convert_tokens_to_ids(str(sign)))
        if medium == "image" and isinstance(codes := getattr(config, "vocabulary_map", None), dict):
            codes["<image>"] = tokenizer.convert_tokens_to_ids(str(sign))


def _sizes(part: Any, config: Any) -> dict[str, Any]:
    """The size of the images that the model takes, as a value of its image processor."""
    vision = getattr(config, "vision_config", None)
    side, own = getattr(vision, "image_size", None), getattr(part, "size", None)
    side = side[0] if isinstance(side, list | tuple) else side
    patches = {
        key: getattr(vision, key)
        for key in PATCHES
        if isinstance(getattr(vision, key, None), int) and hasattr(part, key)
    }
    if not isinstance(side, int) or own is None:
        return patches
    square = {"height": side, "width": side}
    sized = {"size": type(own)(**square)} if {"height", "width"} <= {key for key in dict(own) if own[key]} else {}
    if "shortest_edge" in dict(own) and own["shortest_edge"] and getattr(part, "crop_size", None):
        sized = {"size": type(own)(shortest_edge=side), "crop_size": type(part.crop_size)(**square)}
    return patches | sized


def _arguments(made: Any, config: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a processor that must be those of the model's config."""
    known = inspect.signature(made).parameters
    vision = getattr(config, "vision_config", None)
    found = {
        "patch_size": getattr(vision, "patch_size", None),
        "vision_feature_select_strategy": getattr(config, "vision_feature_select_strategy", None),
        "image_seq_length": getattr(config, "image_seq_length", None) or getattr(config, "mm_tokens_per_image", None),
        "spatial_merge_size": getattr(config, "spatial_merge_size", None),
    }
    chosen = {key: value for key, value in found.items() if key in known and value is not None}
    return chosen | given.get("processor", {})


def _template(processor: Any) -> str:
    """A chat template that writes what the processor expects where an image or sound is."""
    image = str(getattr(processor, "image_placeholder_token", None) or getattr(processor, "image_token", ""))
    if type(processor).__name__ in BORDERED:
        image = f"{processor.image_start_token}{image}{processor.image_end_token}"
    signs = {"image": image} | {kind: str(getattr(processor, f"{kind}_token", "")) for kind in ("audio", "video")}
    shown = (
        " else ".join(f"{sign!r} if part['type'] == '{kind}'" for kind, sign in signs.items()) + " else part['text']"
    )
    return PARTS.replace("'<image>' if part['type'] == 'image' else part['text']", shown)


def name_processor(kind: str, folder: Path) -> None:
    """Writes of a processor what tells transformers which one it is, and which are its parts."""
    from transformers.models.auto import feature_extraction_auto, image_processing_auto

    made = {"processor_class": processor_name(kind)}
    images: Any = image_processing_auto.IMAGE_PROCESSOR_MAPPING_NAMES.get(kind)
    parts = {
        "image_processor_type": next(iter(images.values())) if isinstance(images, dict) else images,
        "feature_extractor_type": feature_extraction_auto.FEATURE_EXTRACTOR_MAPPING_NAMES.get(kind),
    }
    (folder / "processor_config.json").write_text(json.dumps(made))
    told = made | {key: value for key, value in parts.items() if value}
    (folder / "preprocessor_config.json").write_text(json.dumps(told))


def _mels(config: Any) -> int | None:
    """The number of mel bands that the model of sound takes."""
    sound = getattr(config, "audio_config", None)
    sound = getattr(sound, "asr_config", sound)
    return getattr(sound, "num_mel_bins", None) or getattr(sound, "feature_size", None)


def _part(auto: Any, config: Any, mels: int | None) -> Any:
    from transformers.models.auto import feature_extraction_auto, image_processing_auto, video_processing_auto

    if auto is AutoFeatureExtractor:
        made = feature_extraction_auto.FEATURE_EXTRACTOR_MAPPING[config]
        sized = mels is not None and "feature_size" in inspect.signature(made).parameters
        return made(feature_size=mels) if sized else made()
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
