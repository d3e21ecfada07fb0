"""Tiny multimodal models with the real processor of their type, around the tiny tokenizer: no network, no files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    PreTrainedTokenizerFast,
    WhisperFeatureExtractor,
)
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES, processor_class_from_name

from tests.tiny import save_tiny_gemma3, save_tiny_llava, tiny_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TEXT = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512,
}  # fmt: skip
SIGLIP = {
    "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
}  # fmt: skip
QWEN_SIZE = {"shortest_edge": 28 * 28, "longest_edge": 112 * 112}
"""Smallest and largest number of pixels of a picture of Qwen-VL."""


def template(**signs: str) -> str:
    """Chat template that takes contents in parts, and writes these signs for `image`, `video` and `audio`."""
    choices = "".join(f"{{% elif part['type'] == '{kind}' %}}{{{{ '{sign}' }}}}" for kind, sign in signs.items())
    return (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}{% for part in message['content'] %}"
        "{% if part['type'] == 'text' %}{{ part['text'] }}" + choices + "{% endif %}{% endfor %}"
        "{{ '<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )


def tokenizer_with(chat_template: str, named: dict[str, str], others: tuple[str, ...] = ()) -> Any:
    """The tiny tokenizer with further special tokens, some of them by a name."""
    plain = tiny_tokenizer(chat_template)
    made = PreTrainedTokenizerFast(
        tokenizer_object=plain.backend_tokenizer, bos_token=plain.bos_token, eos_token=plain.eos_token,
        pad_token=plain.pad_token, unk_token=plain.unk_token, chat_template=chat_template,
        clean_up_tokenization_spaces=False, extra_special_tokens=named,
    )  # fmt: skip
    made.add_tokens([*named.values(), *others], special_tokens=True)
    return made


def _qwen(kind: str) -> Callable[[Path], None]:
    def save(folder: Path) -> None:
        from transformers import Qwen2VLImageProcessorPil
        from transformers.models.auto.video_processing_auto import video_processor_class_from_name

        signs = template(
            image="<|vision_start|><|image_pad|><|vision_end|>", video="<|vision_start|><|video_pad|><|vision_end|>"
        )
        named = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
        tokenizer = tokenizer_with(signs, named, ("<|vision_start|>", "<|vision_end|>"))
        ids = {
            "image_token_id": tokenizer.image_token_id, "video_token_id": tokenizer.video_token_id,
            "vision_start_token_id": tokenizer.convert_tokens_to_ids("<|vision_start|>"),
            "vision_end_token_id": tokenizer.convert_tokens_to_ids("<|vision_end|>"),
        }  # fmt: skip
        text = TEXT | {
            "vocab_size": len(tokenizer), "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3]},
        }  # fmt: skip
        vision: dict[str, Any] = {"depth": 2, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2}
        if kind == "qwen2_vl":
            vision |= {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}
        else:
            vision |= {"hidden_size": 32, "out_hidden_size": 64, "intermediate_size": 48}
        if kind == "qwen2_5_vl":
            vision |= {"window_size": 56, "fullatt_block_indexes": [1]}
        if kind == "qwen3_vl":
            vision |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]}
        config: Any = AutoConfig.for_model(
            kind, text_config=text, vision_config=vision, tie_word_embeddings=True, **ids
        )
        video: Any = video_processor_class_from_name(
            "Qwen3VLVideoProcessor" if kind == "qwen3_vl" else "Qwen2VLVideoProcessor"
        )
        pictures = Qwen2VLImageProcessorPil(size=QWEN_SIZE, patch_size=14)
        _save(folder, kind, config, tokenizer, pictures, video(size=QWEN_SIZE, patch_size=14))

    return save


def _internvl(folder: Path) -> None:
    from transformers import GotOcr2ImageProcessorPil, InternVLVideoProcessor

    named = {
        "start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }  # fmt: skip
    tokenizer = tokenizer_with(template(image="<IMG_CONTEXT>\n", video="<video>\n"), named)
    config = AutoConfig.for_model(
        "internvl",
        text_config=TEXT | {"model_type": "qwen2", "vocab_size": len(tokenizer)},
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": [28, 28], "patch_size": [7, 7],
        },
        image_token_id=tokenizer.context_image_token_id, image_seq_length=4,
    )  # fmt: skip
    size = {"height": 28, "width": 28}
    pictures = GotOcr2ImageProcessorPil(size=size, crop_to_patches=False)
    _save(folder, "internvl", config, tokenizer, pictures, InternVLVideoProcessor(size=size), image_seq_length=4)


def _smolvlm(folder: Path) -> None:
    from transformers import SmolVLMImageProcessorPil, SmolVLMVideoProcessor

    named = {"image_token": "<image>", "fake_image_token": "<fake_token_around_image>",
             "global_image_token": "<global-img>", "end_of_utterance_token": "<end_of_utterance>",
             "video_token": "<video>"}  # fmt: skip
    tokenizer = tokenizer_with(template(image="<image>", video="<video>"), named, ("<row_1_col_1>",))
    config = AutoConfig.for_model(
        "smolvlm",
        text_config=TEXT | {"model_type": "llama", "vocab_size": len(tokenizer), "pad_token_id": 0},
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 32, "patch_size": 8,
        },
        image_token_id=tokenizer.image_token_id, scale_factor=2,
    )  # fmt: skip
    sizes: dict[str, Any] = {"size": {"longest_edge": 32}, "max_image_size": {"longest_edge": 32}}
    videos = SmolVLMVideoProcessor(**sizes, num_frames=4, fps=1)
    pictures = SmolVLMImageProcessorPil(**sizes, do_image_splitting=False)
    _save(folder, "smolvlm", config, tokenizer, pictures, videos, image_seq_len=4)


def _paligemma(folder: Path) -> None:
    from transformers import SiglipImageProcessorPil

    tokenizer = tokenizer_with(template(image="<image>"), {"image_token": "<image>"})
    pictures = SiglipImageProcessorPil(size={"height": 28, "width": 28})
    pictures.image_seq_length = 4
    tokenizer.add_tokens([f"<loc{n:0>4}>" for n in range(1024)] + [f"<seg{n:0>3}>" for n in range(128)])
    config = AutoConfig.for_model(
        "paligemma",
        text_config=TEXT | {"model_type": "gemma", "vocab_size": len(tokenizer), "pad_token_id": 0},
        vision_config=SIGLIP | {"projection_dim": 64, "vision_use_head": False},
        projection_dim=64, image_token_index=tokenizer.image_token_id, vocab_size=len(tokenizer), hidden_size=64,
    )  # fmt: skip
    _save(folder, "paligemma", config, tokenizer, pictures)


def _gemma3(folder: Path) -> None:
    save_tiny_gemma3(folder)
    (folder / "chat_template.jinja").write_text(template(image="<boi>"))


def _gemma4(folder: Path) -> None:
    from transformers import Gemma4AudioFeatureExtractor, Gemma4ImageProcessorPil, Gemma4VideoProcessor

    named = {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>", "audio_token": "<|audio|>",
             "boa_token": "<|audio>", "eoa_token": "<audio|>"}  # fmt: skip
    signs = template(image="<|image|>", video="<|video|>", audio="<|audio|>")
    tokenizer = tokenizer_with(signs, named, ("<|video|>",))
    config: Any = AutoConfig.for_model(
        "gemma4",
        text_config=TEXT | {
            "vocab_size": len(tokenizer), "vocab_size_per_layer_input": len(tokenizer),
            "hidden_size_per_layer_input": 8,
            "global_head_dim": 16, "num_kv_shared_layers": 0, "layer_types": ["sliding_attention", "full_attention"],
            "sliding_window": 512, "use_bidirectional_attention": "vision",
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 2, "head_dim": 16, "patch_size": 16, "pooling_kernel_size": 3,
        },
        vision_soft_tokens_per_image=70,
    )  # fmt: skip
    for key, name in (("image_token_id", "image_token"), ("boi_token_id", "boi_token"), ("eoi_token_id", "eoi_token"),
                      ("audio_token_id", "audio_token"), ("boa_token_id", "boa_token"),
                      ("eoa_token_index", "eoa_token")):  # fmt: skip
        setattr(config, key, getattr(tokenizer, f"{name}_id"))
    config.video_token_id = tokenizer.convert_tokens_to_ids("<|video|>")
    pictures = Gemma4ImageProcessorPil(max_soft_tokens=70)
    videos = Gemma4VideoProcessor(max_soft_tokens=70)
    _save(folder, "gemma4", config, tokenizer, pictures, videos, feature_extractor=Gemma4AudioFeatureExtractor())


def _qwen2_audio(folder: Path) -> None:
    named = {"audio_token": "<|AUDIO|>", "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>"}
    tokenizer = tokenizer_with(template(audio="<|audio_bos|><|AUDIO|><|audio_eos|>"), named)
    sound = {
        "d_model": 32, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 48, "num_mel_bins": 16,
        "max_source_positions": 50,
    }  # fmt: skip
    config = AutoConfig.for_model(
        "qwen2_audio", text_config=TEXT | {"model_type": "qwen2", "vocab_size": len(tokenizer)}, audio_config=sound,
        audio_token_index=tokenizer.audio_token_id,
    )  # fmt: skip
    extractor = WhisperFeatureExtractor(feature_size=16, chunk_length=1)
    _save(folder, "qwen2_audio", config, tokenizer, feature_extractor=extractor)


def _save(folder: Path, kind: str, config: Any, tokenizer: Any, *parts: Any, **options: Any) -> None:
    """Writes model and processor of a type; `parts` are its processors of pictures and videos."""
    names = ("image_processor", "video_processor")
    made: Any = processor_class_from_name(PROCESSOR_MAPPING_NAMES[kind])
    given = dict(zip(names, parts, strict=False)) | options
    processor = made(tokenizer=tokenizer, chat_template=tokenizer.chat_template, **given)
    config.tie_word_embeddings = True
    config.get_text_config().tie_word_embeddings = True
    with torch.random.fork_rng():
        torch.manual_seed(0)
        images = type(config) in AutoModelForImageTextToText._model_mapping
        model: Any = (AutoModelForImageTextToText if images else AutoModelForMultimodalLM).from_config(config)
        with torch.no_grad():
            for name, one in model.named_parameters():  # larger than at the start of a training: all of it counts
                if one.ndim > 1 and "conv" not in name and "patch" not in name:
                    one.copy_(torch.randn_like(one) * (0.5 if "embed" in name else 0.7 * one.shape[-1] ** -0.5))
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


SAVERS: dict[str, Callable[[Path], None]] = {
    "llava": save_tiny_llava,
    "qwen2_vl": _qwen("qwen2_vl"),
    "qwen2_5_vl": _qwen("qwen2_5_vl"),
    "qwen3_vl": _qwen("qwen3_vl"),
    "gemma3": _gemma3,
    "gemma4": _gemma4,
    "internvl": _internvl,
    "smolvlm": _smolvlm,
    "paligemma": _paligemma,
    "qwen2_audio": _qwen2_audio,
}
