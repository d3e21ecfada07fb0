"""Checks that a model's config and weights agree, from the headers of its safetensors files (no torch)."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from llf_core.models.errors import ModelError
from llf_core.models.model_folder import REDOWNLOAD, check_text_files, read_config, read_json_object, weight_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


JSON_FILES = (
    "config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json",
    "preprocessor_config.json", "processor_config.json", "adapter_config.json",
)  # fmt: skip
MAX_LABELS = 1_000_000

MAX_PACKING = 16
"""Weights that one stored value can hold (2 bits each in an int32)."""

MAX_SHARED_LAYERS = 1000
"""Layers that a model may have beyond its number of stored tensors: some models reuse weights in several layers."""

MAX_CONTEXT = 2**31
"""No model has a longer context."""

MIN_SIZES = {
    "num_hidden_layers": 1, "hidden_size": 1, "vocab_size": 1, "num_attention_heads": 1, "num_key_value_heads": 0,
    "intermediate_size": 0, "head_dim": 0,
}  # fmt: skip
"""Smallest valid sizes; 0 means that the model may do without it."""

SIZE_PRODUCTS = (
    ("vocab_size", "hidden_size"),
    ("hidden_size", "intermediate_size"),
    ("num_attention_heads", "head_dim"),
)
"""Sizes whose product cannot exceed the number of values of a single weight."""
COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "num_attention_heads", "num_key_value_heads")


def check_sizes(folder: Path) -> None:
    """Refuse a model whose config asks for far more memory than its weights have, or whose files cannot be right.

    transformers allocates memory by the config. Smaller differences are errors of the loader, which cost no memory.

    Raises:
        ModelError: a size or value is invalid, weights are integers without a quantization_config, or a file is
            damaged, too large, not regular or unreadable.
    """
    check_text_files(folder)
    config = read_config(folder)
    tensors = stored_tensors(folder)
    numbers, count = MAX_PACKING * sum(tensor.count for tensor in tensors.values()), len(tensors)
    if not tensors:
        _, pickles, _ = weight_files(file.name for file in folder.iterdir())
        numbers = MAX_PACKING * sum((folder / name).stat().st_size for name in pickles)
        count = numbers
    path = folder / "config.json"
    if wrong := _odd_value(config):
        raise ModelError(f"{path} says that {wrong}. {REDOWNLOAD}")
    whole = next((name for name, one in tensors.items() if name.endswith(".weight") and one.dtype in INTEGERS), None)
    if whole is not None and not config.get("quantization_config"):
        raise ModelError(
            f"{folder} has integers as {whole[:100]} ({tensors[whole].dtype}), and no quantization_config that "
            f"explains what they represent. {REDOWNLOAD}"
        )
    for part in _parts(config):
        wrong = _too_large(part, numbers, count)
        if wrong:
            raise ModelError(f"{path} cannot belong to these weights: {wrong}. {REDOWNLOAD}")


def _odd_value(config: dict[str, Any]) -> str:
    """Description of an invalid value in a config; empty if there is none."""
    for key, least in MIN_SIZES.items():
        value = config.get(key)
        if type(value) is int and value < least:
            return f"{key} is {_shown(value)}. Expected at least {least}"
    labels = next((part["num_labels"] for part in _parts(config) if _large(part.get("num_labels"))), None)
    if labels is not None:
        return f"num_labels is {_shown(labels)}. Expected at most {MAX_LABELS:,}"
    for key, value in config.items():
        if key.endswith(("dropout", "pdrop")) and isinstance(value, int | float) and not 0 <= value <= 1:
            shown = f"{value:g}" if isinstance(value, float) else _shown(value)
            return f"{key[:100]} is {shown}. Expected a number from 0 to 1"
    if not isinstance(config.get("model_type", ""), str):
        return f"model_type is {str(config['model_type'])[:100]}. Expected a string"
    if not isinstance(config.get("quantization_config"), dict | None):
        return f"quantization_config is {str(config['quantization_config'])[:100]}. Expected an object"
    return ""


def _large(labels: object) -> bool:
    return isinstance(labels, int) and labels > MAX_LABELS


def _parts(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield config
    yield from (value for key, value in config.items() if key.endswith("_config") and isinstance(value, dict))


def _too_large(config: dict[str, Any], numbers: int, tensors: int) -> str:
    """Description of a size that is too large for the weights; empty if there is none."""

    def size(key: str) -> int:
        value = config.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else 0

    layers, positions = size("num_hidden_layers"), size("max_position_embeddings")
    if layers > tensors + MAX_SHARED_LAYERS:
        return f"num_hidden_layers is {_shown(layers)}, and they are {tensors:,} tensors"
    if positions > MAX_CONTEXT:
        return f"max_position_embeddings is {_shown(positions)}. Expected at most {MAX_CONTEXT:,}"
    for one, other in SIZE_PRODUCTS:
        if max(size(one), 1) * max(size(other), 1) > numbers:
            key = one if size(one) > size(other) else other
            return f"{key} is {_shown(size(key))}, and they contain {numbers // MAX_PACKING:,} numbers in all"
    most = next((key for key in COUNTS if size(key) > numbers), None)
    return (
        ""
        if most is None
        else f"{most} is {_shown(size(most))}, and they contain {numbers // MAX_PACKING:,} numbers in all"
    )


def _shown(value: int) -> str:
    """A number in a message; one beyond the range of a float by the number of its digits."""
    if abs(value) < 10**300:
        return f"{value:,}" if abs(value) < 10**15 else f"{value:.3g}"
    return f"a number of {int(value.bit_length() * math.log10(2)) + 1} digits"


def damaged_json(folder: Path) -> str:
    """Sentence that names the first JSON file of a folder that is invalid or unreadable; empty if all are valid."""
    try:
        for path in (folder / name for name in JSON_FILES):
            if path.is_file():
                read_json_object(path)
    except ModelError as error:
        return str(error)
    return ""


MAX_HEADER_BYTES = 100_000_000

DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64, "F16": 16,
    "BF16": 16, "F32": 32, "F64": 64, "C64": 64, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4,
}  # fmt: skip
"""Bits per value of each dtype; newer dtypes are not checked."""
INTEGERS = ("BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64")

MAX_VALUES = 4_000_000
"""JSON values in a header, enough for about half a million tensors."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a safetensors file; `dtype` as the format names it, e.g. `BF16`."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Read names, dtypes and shapes of all tensors in a folder's `*.safetensors`, except those of adapters."""
    return {
        name: tensor
        for path in sorted(folder.glob("*.safetensors"))
        if not path.name.startswith("adapter_model")
        for name, tensor in read_header(path).items()
    }


def stored_dtypes(folder: Path) -> set[str]:
    """Dtypes of the stored weights, e.g. `F32`; empty without safetensors."""
    return {tensor.dtype for tensor in stored_tensors(folder).values()}


def stored_dtype(folder: Path) -> str | None:
    """Dtype of most of the stored values, e.g. `BF16`; None without safetensors."""
    counts: Counter[str] = Counter()
    for tensor in stored_tensors(folder).values():
        counts[tensor.dtype] += tensor.count
    return counts.most_common(1)[0][0] if counts else None


def read_header(path: Path) -> dict[str, StoredTensor]:
    """Read the header of a safetensors file and check it against the file's size.

    The format is specified in the README of Hugging Face's `safetensors`.

    Raises:
        ModelError: it is truncated, not a regular file or not a safetensors file.
    """
    if not path.is_file():  # a pipe would be waited for
        raise ModelError(f"{path} is not a regular file. Expected a safetensors file. {REDOWNLOAD}")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0  # noqa: PLR2004 - the format's first field
        text = file.read(length) if 0 < length <= min(size, MAX_HEADER_BYTES) else b""
    try:
        # A parsed value takes about fifty times the memory of its text.
        few = sum(text.count(sign) for sign in b",[{") <= MAX_VALUES
        header = json.loads(text if few else b"", object_pairs_hook=_once)
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        found = {name: StoredTensor(entry["dtype"], tuple(entry["shape"])) for name, entry in tensors.items()}
        wrong = _wrong(tensors, header.get("__metadata__", {}), size - 8 - length)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        raise ModelError(f"{path} is not a complete safetensors file. {REDOWNLOAD}") from error
    if wrong:
        raise ModelError(f"{path} {wrong}. {REDOWNLOAD}")
    return found


def _wrong(tensors: dict[str, Any], notes: object, size: int) -> str:
    """What is wrong with a header (`notes` is its `__metadata__`, `size` the bytes after it); empty if it is valid."""
    if not tensors:
        return "has no weights"
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        return "is damaged: its metadata are not strings"
    odd = next((name for name, entry in tensors.items() if not _consistent(entry)), None)
    if odd is not None:
        return f"is damaged: the size of {odd[:100]} does not match its shape"
    spans = sorted((*entry["data_offsets"], name) for name, entry in tensors.items())
    end = max(end for _, end, _ in spans)
    if end > size:
        return f"is truncated: it has {size:,} bytes of weights and should have {end:,}"
    apart = next((name for (_, before, _), (begin, _, name) in pairwise([(0, 0, ""), *spans]) if begin != before), None)
    if apart is not None:
        return f"is damaged: {apart[:100]} does not start at the end of the previous tensor"
    return "" if end == size else f"is damaged: it has {size:,} bytes of weights and should have {end:,}"


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a name occurs twice")
    return value


def _consistent(entry: Any) -> bool:
    begin, end = entry["data_offsets"]
    shape, bits = entry["shape"], DTYPE_BITS.get(entry["dtype"])
    if (
        not isinstance(entry["dtype"], str)
        or not all(isinstance(size, int) and size >= 0 for size in (*shape, begin, end))
        or begin > end
    ):
        return False
    return bits is None or 8 * (end - begin) == math.prod(shape) * bits
