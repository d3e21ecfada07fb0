"""GGUF files, read by transformers as models of ordinary weights."""

from __future__ import annotations

import functools
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llf_core.models.gguf_header import read_gguf_header
from llf_core.models.progress_bars import no_progress_bars

if TYPE_CHECKING:
    from collections.abc import Iterator
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


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Writes a GGUF file's model as bfloat16 safetensors with its tokenizer and chat template.

    The ids of the special tokens go to the model's configs too: GGUF's metadata names them for the tokenizer only.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from llf_core.models.tokenizer import read_tokenizer

    with no_progress_bars(), read_once():
        tokenizer = read_tokenizer(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, dtype=torch.bfloat16, local_files_only=True, **gguf_arguments(gguf.name)
        )
        for config in (model.config, model.generation_config):
            config.bos_token_id = tokenizer.bos_token_id
            config.eos_token_id = tokenizer.eos_token_id
            config.pad_token_id = tokenizer.pad_token_id
        tokenizer.model_max_length = model.config.max_position_embeddings
        vars(model.config).pop("_model_name_or_path", None)  # GGUF's title, which loads nothing
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def read_once() -> Iterator[None]:
    """Has transformers read a GGUF file once.

    It parses the whole file for the tokenizer, for the config and for the weights, and it makes the table of all names
    of weights again for every module of a model: half of the time that a conversion took.
    """
    import gguf
    import numpy as np

    class Reader(gguf.GGUFReader):  # type: ignore[misc]  # gguf ships no types
        """Reads a mapped file as a plain array: each slice of a `memmap` costs ten times as much."""

        @property
        def data(self) -> Any:
            return self._data

        @data.setter
        def data(self, mapped: Any) -> None:
            self._data = np.asarray(mapped)

    plain = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = functools.cache(Reader), functools.cache(plain[1])
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = plain
