"""What a folder's safetensors hold, from their headers alone (no torch)."""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.models.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

HEADER_LIMIT = 100_000_000
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64, "F16": 16,
    "BF16": 16, "F32": 32, "F64": 64, "C64": 64, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4,
}  # fmt: skip
"""Of a number of each dtype; of one that a newer format may have nothing is checked."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a safetensors file: its dtype as the format names it (`F32`, `BF16` …) and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def stored_tensors(folder: Path) -> dict[str, StoredTensor]:
    """Names, dtypes and shapes of all tensors in a folder's `*.safetensors`.

    Raises:
        ModelError: a file is cut or is no safetensors file.
    """
    return {
        name: tensor
        for path in sorted(folder.glob("*.safetensors"))
        if not path.name.startswith("adapter_model")
        for name, tensor in read_header(path).items()
    }


def stored_dtypes(folder: Path) -> set[str]:
    """Dtypes of the stored weights."""
    return {tensor.dtype for tensor in stored_tensors(folder).values()}


def stored_dtype(folder: Path) -> str | None:
    """The dtype of most of the stored numbers, e.g. `BF16`; None where there are no safetensors."""
    counts: Counter[str] = Counter()
    for tensor in stored_tensors(folder).values():
        counts[tensor.dtype] += tensor.count
    return counts.most_common(1)[0][0] if counts else None


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The header of one safetensors file.

    Raises:
        ModelError: it is cut or is no safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0  # noqa: PLR2004 - the format's first field
        text = file.read(length) if 0 < length <= min(size, HEADER_LIMIT) else b""
    try:
        header = json.loads(text)
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        found = {name: StoredTensor(entry["dtype"], tuple(entry["shape"])) for name, entry in tensors.items()}
        odd = next((name for name, entry in tensors.items() if not _consistent(entry)), None)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError) as error:
        raise ModelError(f"{path} is not a complete safetensors file. Copy or download the model again.") from error
    if odd is not None:
        raise ModelError(
            f"{path} is damaged: the size of {odd[:100]} is not that of its shape. Copy or download the model again."
        )
    if end > size:
        raise ModelError(
            f"{path} is cut: it has {size:,} bytes and should have {end:,}. Copy or download the model again."
        )
    if not found:
        raise ModelError(f"{path} holds no weight. Copy or download the model again.")
    return found


def _consistent(entry: Any) -> bool:
    """Whether a tensor has as many bytes as its shape and dtype say."""
    begin, end = entry["data_offsets"]
    shape, bits = entry["shape"], BITS.get(entry["dtype"])
    if not all(isinstance(size, int) and size >= 0 for size in (*shape, begin, end)) or begin > end:
        return False
    return bits is None or 8 * (end - begin) == math.prod(shape) * bits
