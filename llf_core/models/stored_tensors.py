"""Reads the headers of safetensors files (no torch)."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from llf_core.models.errors import ModelError
from llf_core.models.model_folder import REDOWNLOAD

if TYPE_CHECKING:
    from pathlib import Path

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
