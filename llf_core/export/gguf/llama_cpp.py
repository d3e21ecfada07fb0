"""A GGUF file in llama.cpp, through the C functions of `llama-cpp-py-sync`.

A fault of the C library ends the process, so only a process of its own imports this (`llama_process`).
"""

from __future__ import annotations

import json
import time
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from llama_cpp_py_sync._cffi_bindings import get_ffi, get_lib

from llf_core.export.request import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

F32 = 0
"""`GGML_TYPE_F32`."""
BATCH = 512
ERROR_LEVEL = 4
"""`GGML_LOG_LEVEL_ERROR`: lower levels are not printed."""

ffi: Any = get_ffi()
lib: Any = get_lib()


@ffi.callback("void(enum ggml_log_level, const char *, void *)")  # type: ignore[untyped-decorator]  # cffi ships no types
def _log(level: int, text: object, _: object) -> None:
    if level >= ERROR_LEVEL and level != ERROR_LEVEL + 1:
        messages.append(ffi.string(text).decode("utf-8", "replace").strip())


messages: list[str] = []
lib.llama_log_set(_log, ffi.NULL)
lib.llama_backend_init()


class LlamaCpp:
    """A loaded GGUF file with a context of its own, whose keys and values are float32.

    Args:
        length: maximum number of tokens of a sequence.

    Raises:
        ExportError: llama.cpp cannot load the file.
    """

    def __init__(self, gguf: Path, length: int, threads: int, adapter: Path | None = None) -> None:
        parameters = lib.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self._model = lib.llama_model_load_from_file(str(gguf).encode(), parameters)
        if self._model == ffi.NULL:
            raise ExportError(f"llama.cpp cannot load {gguf.name}: {last_message()}")
        options = lib.llama_context_default_params()
        options.n_ctx, options.n_batch, options.n_ubatch = length, BATCH, BATCH
        options.n_threads = options.n_threads_batch = threads
        options.type_k = options.type_v = F32
        options.flash_attn_type = 0
        self._context = lib.llama_init_from_model(self._model, options)
        if self._context == ffi.NULL:
            lib.llama_model_free(self._model)
            raise ExportError(f"llama.cpp cannot run {gguf.name}: {last_message()}")
        if adapter is not None:
            self._apply(adapter)
        self._vocabulary = lib.llama_model_get_vocab(self._model)
        self.vocabulary_size = int(lib.llama_vocab_n_tokens(self._vocabulary))

    def _apply(self, adapter: Path) -> None:
        loaded = lib.llama_adapter_lora_init(self._model, str(adapter).encode())  # freed with the model
        if loaded == ffi.NULL:
            self.close()
            raise ExportError(f"llama.cpp cannot load the adapter {adapter.name}: {last_message()}")
        lora, scale = ffi.new("struct llama_adapter_lora *[]", [loaded]), ffi.new("float[]", [1.0])
        lib.llama_set_adapters_lora(self._context, lora, 1, scale)

    def close(self) -> None:
        """Free the model and its context."""
        lib.llama_free(self._context)
        lib.llama_model_free(self._model)

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return int(lib.llama_model_n_params(self._model))

    @property
    def template(self) -> str | None:
        """The source of the chat template; None if the file has none.

        For a file without one that has Mistral's Tekken tokenizer and 40 layers, it is a name, `mistral-v7-tekken`.
        """
        found = lib.llama_model_chat_template(self._model, ffi.NULL)
        return None if found == ffi.NULL else ffi.string(found).decode("utf-8", "replace")

    def stops(self, tokens: Iterable[int]) -> list[int]:
        """Filter the token ids at which llama.cpp ends an answer."""
        return [token for token in tokens if lib.llama_vocab_is_eog(self._vocabulary, token)]

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """Split a text without lone surrogates into tokens, names of special tokens too.

        `special` adds what the file prescribes at the beginning and end, such as BOS.
        """
        data = text.encode("utf-8")
        room = len(data) + 16
        ids = ffi.new("llama_token[]", room)
        count = lib.llama_tokenize(self._vocabulary, data, len(data), ids, room, special, True)  # noqa: FBT003 - C
        return list(ids[0:count])

    def logits(self, tokens: Sequence[int], *, first: int = 0) -> NDArray[np.float32]:
        """Logits `[tokens - first, vocabulary]`, float32, after each token of a new sequence from `first` on."""
        self._clear()
        rows = np.empty((len(tokens) - first, self.vocabulary_size), np.float32)
        for start in range(0, len(tokens), BATCH):
            part = range(start, min(start + BATCH, len(tokens)))
            self._decode([tokens[place] for place in part], start, [place >= first for place in part])
            for place in part:
                if place >= first:
                    rows[place - first] = self._row(place - start)
        return rows

    def answer(self, tokens: Sequence[int], limit: int) -> list[int]:
        """Greedy answer to a prompt of at least one token: at most `limit` new tokens, with the one that ends it."""
        made = [int(self.logits(tokens, first=len(tokens) - 1)[0].argmax())]
        while len(made) < limit and not self.stops(made[-1:]):
            made.append(self._next(made[-1], len(tokens) + len(made) - 1))
        return made

    def decode(self, tokens: Sequence[int], count: int) -> float:
        """Seconds for decoding `count` tokens one by one. The prompt's logits must have been computed last."""
        token, began = tokens[-1], time.perf_counter()
        for place in range(count):
            token = self._next(token, len(tokens) + place)
        return time.perf_counter() - began

    def _next(self, token: int, place: int) -> int:
        self._decode([token], place, [True])
        return int(self._row(0).argmax())

    def _clear(self) -> None:
        lib.llama_memory_clear(lib.llama_get_memory(self._context), True)  # noqa: FBT003 - C

    def _row(self, place: int) -> NDArray[np.float32]:
        """Logits of a token of the last batch, in memory of llama.cpp."""
        pointer = lib.llama_get_logits_ith(self._context, place)
        return np.frombuffer(ffi.buffer(pointer, self.vocabulary_size * 4), np.float32)

    def _decode(self, tokens: Sequence[int], start: int, wanted: Sequence[bool]) -> None:
        batch = lib.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for index, token in enumerate(tokens):
                batch.token[index], batch.pos[index] = token, start + index
                batch.n_seq_id[index], batch.seq_id[index][0] = 1, 0
                batch.logits[index] = wanted[index]
            code = lib.llama_decode(self._context, batch)
        finally:
            lib.llama_batch_free(batch)
        if code:
            raise ExportError(f"llama.cpp cannot compute {len(tokens)} tokens (code {code}): {last_message()}")


def quantize(gguf: Path, target: Path, file_type: int, threads: int) -> None:
    """Quantize a GGUF file of 16 or 32 bits, by llama.cpp's own choice of a type for each tensor.

    Args:
        file_type: `llama_ftype`.
    """
    options = lib.llama_model_quantize_default_params()
    options.ftype, options.nthread = file_type, threads
    if lib.llama_model_quantize(
        str(gguf).encode(), str(target).encode(), ffi.new("llama_model_quantize_params *", options)
    ):
        raise ExportError(f"llama.cpp cannot quantize {gguf.name}: {last_message()}")


def last_message() -> str:
    """The last error that llama.cpp has logged, for the end of a sentence."""
    return messages[-1] if messages else "it gives no reason"


def commit() -> str:
    """First digits of the commit of llama.cpp that the package was built from."""
    found: str = json.loads(files("llama_cpp_py_sync").joinpath("native_manifest.json").read_text())["llama_cpp_commit"]
    return found[:9]
