from __future__ import annotations

import functools
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llf_core.models.gguf import gguf_arguments
from llf_core.models.lazy_imports import no_progress_bars
from llf_core.models.tokenizer import read_tokenizer
from llf_core.runs.disk_errors import error_number

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch
    from transformers import PreTrainedModel


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Convert a GGUF file to bfloat16 safetensors with tokenizer and chat template.

    The ids of special tokens are written to the configs too: GGUF stores them for the tokenizer only.
    """
    import torch
    from safetensors import SafetensorError

    with no_progress_bars(), cached_gguf_reader():
        tokenizer = read_tokenizer(gguf.parent, gguf_file=gguf.name)
        model: Any = read_gguf_model(gguf, torch.bfloat16)
        for config in (model.config, model.generation_config):
            config.bos_token_id = tokenizer.bos_token_id
            config.eos_token_id = tokenizer.eos_token_id
            config.pad_token_id = tokenizer.pad_token_id
        tokenizer.model_max_length = model.config.max_position_embeddings
        try:
            model.save_pretrained(folder)
        except SafetensorError as error:
            if (number := error_number(error)) is None:
                raise
            raise OSError(number, os.strerror(number), str(folder)) from error
    tokenizer.save_pretrained(folder)


def read_gguf_model(gguf: Path, dtype: torch.dtype) -> PreTrainedModel:
    """Read a GGUF file as a model with ordinary weights, which can be trained and saved as safetensors.

    Raises:
        ValueError: transformers does not know the architecture, or the package gguf cannot dequantize a format.
    """
    from transformers import AutoModelForCausalLM

    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            gguf.parent, dtype=dtype, local_files_only=True, **gguf_arguments(gguf.name)
        )
    except NotImplementedError as error:
        raise ValueError(str(error)) from error
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise ValueError(
            "transformers derives other shapes of weights from the settings in the file than it has, such as another "
            "head_dim"
        ) from error
    vars(model.config).pop("_model_name_or_path", None)  # GGUF's title, not a name that can be loaded
    return model


@contextmanager
def cached_gguf_reader() -> Iterator[None]:
    """Context manager in which transformers parses a GGUF file once, in place of three times.

    Reading a model takes a third to a fifth of the time (SmolLM2-135M, Q8_0).
    """
    import gguf
    import numpy as np

    class Reader(gguf.GGUFReader):  # type: ignore[misc]  # gguf ships no types
        """Reads a mapped file as a plain array: each slice of a `memmap` costs several times as much."""

        @property
        def data(self) -> Any:
            return self._data

        @data.setter
        def data(self, mapped: object) -> None:
            self._data = np.asarray(mapped)

    plain = gguf.GGUFReader, gguf.get_tensor_name_map
    gguf.GGUFReader, gguf.get_tensor_name_map = functools.cache(Reader), functools.cache(plain[1])
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = plain
