"""Reads GGUF files through transformers as models with ordinary weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.models.gguf_header import read_gguf_header

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase


def gguf_arguments(file: str) -> dict[str, Any]:
    """Arguments of `from_pretrained` that load a GGUF file as trainable weights, in any version of transformers."""
    import transformers

    config = getattr(transformers, "GgufConfig", None)
    return {"gguf_file": file} | ({} if config is None else {"quantization_config": config(dequantize=True)})


def fix_pre_tokenizer(tokenizer: PreTrainedTokenizerBase, gguf: Path) -> None:
    """Split digits as SmolLM's own tokenizer does, in place; transformers omits this when it reads a GGUF file."""
    if read_gguf_header(gguf).values.get("tokenizer.ggml.pre") != "smollm":
        return
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
