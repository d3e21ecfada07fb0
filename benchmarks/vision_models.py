"""Vision models of random numbers for `benchmarks.vision_peaks`: SmolLM2-135M's shape with a tower as large as CLIP's.

Each shows an image as 196 tokens in the text: LLaVA one for each patch, Qwen2.5-VL and Gemma 3 one for four patches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.rows import MODEL
from llf_core.config import RunConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TEXT: dict[str, Any] = {
    "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "head_dim": 64, "tie_word_embeddings": True,
}  # fmt: skip
TOWER: dict[str, Any] = {"hidden_size": 768, "intermediate_size": 3072}
DEPTH, HEADS = 12, 12
TOKENS = 196
ROTARY = {"rope_type": "default", "mrope_section": [8, 12, 12]}
"""Parts of a head of 64 for time, height and width."""
SIDES = {"llava": 224, "qwen2_5_vl": 392, "gemma3": 392}
"""Pixels of the sides of an image, by family."""


def tokenizer_with(signs: str, special: dict[str, str], others: tuple[str, ...] = ()) -> Any:
    """The tokenizer of the embedded model with further special tokens.

    Args:
        signs: what its chat template writes for an image.
        special: these tokens by the names that the processor knows them by.
    """
    from transformers import AutoTokenizer

    from llf_core.models import resolve_model

    folder = resolve_model(MODEL, RunConfig.load({"model_name_or_path": MODEL, "dataset": "llf_demo"})).folder
    made: Any = AutoTokenizer.from_pretrained(folder, extra_special_tokens=special)
    made.add_tokens([*special.values(), *others], special_tokens=True)
    made.chat_template = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
        "{{ '" + signs + "' if part['type'] == 'image' else part['text'] }}{% endfor %}{% endif %}"
        "{{ '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )
    return made


def save_llava(folder: Path) -> None:
    """Write a LLaVA: CLIP's tower, whose positions are the tokens of the text."""
    from transformers import CLIPImageProcessorPil, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaProcessor

    side, patch = SIDES["llava"], 16
    tokenizer = tokenizer_with("<image>", {"image_token": "<image>"})
    config = LlavaConfig(
        text_config=LlamaConfig(vocab_size=len(tokenizer), **TEXT),
        vision_config=CLIPVisionConfig(image_size=side, patch_size=patch),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
    )
    sizes: dict[str, Any] = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    processor = LlavaProcessor(
        CLIPImageProcessorPil(**sizes), tokenizer, patch_size=patch, vision_feature_select_strategy="default",
        num_additional_image_tokens=1, chat_template=tokenizer.chat_template,
    )  # fmt: skip
    _save(folder, config, processor)


def save_qwen(folder: Path) -> None:
    """Write a Qwen2.5-VL: a gated tower with windows, four of whose patches are merged to a token."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLProcessor, Qwen2VLImageProcessorPil, Qwen2VLVideoProcessor

    names = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
    borders = ("<|vision_start|>", "<|vision_end|>")
    tokenizer = tokenizer_with("<|vision_start|><|image_pad|><|vision_end|>", names, borders)
    image, video, start, end = tokenizer.convert_tokens_to_ids([*names.values(), *borders])
    text = TEXT | {
        "vocab_size": len(tokenizer),
        "rope_parameters": ROTARY,
    }
    vision = TOWER | {"intermediate_size": 2048, "depth": DEPTH, "num_heads": HEADS, "out_hidden_size": 576,
                      "patch_size": 14, "fullatt_block_indexes": [2, 5, 8, 11]}  # fmt: skip
    config = Qwen2_5_VLConfig(
        text_config=text, vision_config=vision, tie_word_embeddings=True, image_token_id=image, video_token_id=video,
        vision_start_token_id=start, vision_end_token_id=end,
    )  # fmt: skip
    processor = Qwen2_5_VLProcessor(
        Qwen2VLImageProcessorPil(patch_size=14), tokenizer, Qwen2VLVideoProcessor(patch_size=14),
        chat_template=tokenizer.chat_template,
    )  # fmt: skip
    _save(folder, config, processor)


def save_gemma(folder: Path) -> None:
    """Write a Gemma 3: SigLIP's tower, four of whose patches are averaged to a token."""
    from transformers import (
        Gemma3Config,
        Gemma3ImageProcessorPil,
        Gemma3Processor,
        Gemma3TextConfig,
        SiglipVisionConfig,
    )

    names = {"image_token": "<image>", "boi_token": "<boi>", "eoi_token": "<eoi>"}
    tokenizer = tokenizer_with("<boi>", names)
    image, begin, end = tokenizer.convert_tokens_to_ids(list(names.values()))
    side = SIDES["gemma3"]
    vision = SiglipVisionConfig(
        **TOWER, num_hidden_layers=DEPTH, num_attention_heads=HEADS, image_size=side, patch_size=14
    )
    config = Gemma3Config(
        text_config=Gemma3TextConfig(vocab_size=len(tokenizer), **TEXT), vision_config=vision,
        mm_tokens_per_image=TOKENS, image_token_index=image, boi_token_index=begin, eoi_token_index=end,
    )  # fmt: skip
    pictures = Gemma3ImageProcessorPil(size={"height": side, "width": side})
    processor = Gemma3Processor(pictures, tokenizer, image_seq_length=TOKENS, chat_template=tokenizer.chat_template)
    _save(folder, config, processor)


def _save(folder: Path, config: Any, processor: Any) -> None:
    import torch
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)


SAVERS: dict[str, Callable[[Path], None]] = {"llava": save_llava, "qwen2_5_vl": save_qwen, "gemma3": save_gemma}
"""What writes the model of each family."""
