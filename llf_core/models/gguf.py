"""GGUF files, read by transformers as models of ordinary weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.models.gguf_header import read_gguf_header

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase


def gguf_arguments(file: str) -> dict[str, Any]:
    """What `AutoModelForCausalLM.from_pretrained` needs to read a GGUF file as trainable weights.

    transformers 5.24 and newer leave the blocks packed unless told otherwise; older ones always unpack them.

    Args:
        file: its name inside the folder.
    """
    import transformers

    config = getattr(transformers, "GgufConfig", None)
    return {"gguf_file": file} | ({} if config is None else {"quantization_config": config(dequantize=True)})


def mend_pre_tokenizer(tokenizer: PreTrainedTokenizerBase, gguf: Path) -> None:
    """Splits digits as SmolLM's own tokenizer does, which transformers leaves out when it reads a GGUF file.

    Without it the blank line before a numbered list becomes two tokens that the model has hardly seen.
    """
    if read_gguf_header(gguf).values.get("tokenizer.ggml.pre") != "smollm":
        return
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
