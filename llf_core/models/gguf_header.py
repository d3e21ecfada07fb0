"""Reads the metadata of a GGUF file without torch or the package gguf."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

from llf_core.models.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAGIC = b"GGUF"
VERSIONS = (2, 3)
NUMBERS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74),
    18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2),
    26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66),
}  # fmt: skip
"""Values and bytes per block of each tensor type (`GGML_QUANT_SIZES` of the package gguf); newer ones are unchecked."""
MIN_ENTRY_BYTES, MIN_TENSOR_BYTES = 13, 24
MAX_ENTRIES, MAX_TENSORS = 10_000, 1_000_000
MAX_ITEMS = 4_000_000
"""Limit of all lists together; the largest vocabularies have two million items."""
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 2**20
MAX_CONTEXT = 2**31
"""No model has a longer context."""
MAX_DEPTH = 8
SIZES = ("embedding_length", "feed_forward_length", "attention.head_count", "attention.head_count_kv", "vocab_size")
REDOWNLOAD = "Copy or download it again."


@dataclass(frozen=True)
class GgufHeader:
    """Metadata of a GGUF file.

    Attributes:
        values: metadata by key, without lists, e.g. `general.architecture`.
        shapes: shape of each tensor.
    """

    values: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]


def read_gguf_header(path: Path) -> GgufHeader:
    """Read the metadata and the list of tensors (format versions 2 and 3, little-endian; ggml's `docs/gguf.md`).

    All sizes are checked against the size of the file, before a library allocates memory by them.

    Raises:
        ModelError: it is not a GGUF file, or it is truncated or damaged.
    """
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise ModelError(f"{path} is not a GGUF file. Copy or download it again.")
        try:
            header, tensors = _read(file, path)
        except ModelError:
            raise
        except (
            struct.error,
            ValueError,
            KeyError,
            EOFError,
            OverflowError,
            OSError,
        ) as error:  # seek and decoding too
            raise ModelError(f"{path} is a truncated or damaged GGUF file. {REDOWNLOAD}") from error
        wrong = _beyond(header, tensors, file.tell(), path.stat().st_size) or _too_large(header)
    if wrong:
        raise ModelError(f"{path} is a truncated or damaged GGUF file: {wrong}. {REDOWNLOAD}")
    return header


def _read(file: BinaryIO, path: Path) -> tuple[GgufHeader, dict[str, tuple[int, int]]]:
    size = path.stat().st_size
    version, tensors, entries = _unpack(file, "<IQQ")
    if version not in VERSIONS:
        raise ModelError(f"{path} has GGUF version {version}. Expected 2 or 3; convert the model again.")
    if tensors * MIN_TENSOR_BYTES > size or entries * MIN_ENTRY_BYTES > size:
        raise EOFError
    if tensors > MAX_TENSORS or entries > MAX_ENTRIES:
        raise EOFError
    values, left = {}, MAX_ITEMS
    for _ in range(entries):
        key = _string(file, size)
        (kind,) = _unpack(file, "<I")
        if kind == ARRAY:
            left = _skip_array(file, left)
        else:
            values[key] = _value(file, kind, size)
    shapes, places = {}, {}
    for _ in range(tensors):
        name = _string(file, size)
        (rank,) = _unpack(file, "<I")
        if not 0 < rank <= MAX_DIMENSIONS:
            raise EOFError
        shapes[name] = tuple(reversed(_unpack(file, f"<{rank}Q")))
        places[name] = _unpack(file, "<IQ")
    return GgufHeader(values, shapes), places


def _beyond(header: GgufHeader, places: Mapping[str, tuple[int, int]], start: int, size: int) -> str:
    """Name of a tensor that lies beyond the end of the file; empty if there is none."""
    aligned = header.values.get("general.alignment", 32)
    if not isinstance(aligned, int) or not 0 < aligned <= MAX_ALIGNMENT:
        return "general.alignment is not a number of bytes"
    start += -start % aligned
    for name, (kind, offset) in places.items():
        count = math.prod(header.shapes[name])
        block, width = BLOCKS.get(kind, (1, 0))
        end = start + offset + -(-count // block) * width
        if count == 0 or count % block or offset % aligned or end > size:
            return f"its {size:,} bytes cannot contain the tensor {name[:100]} of shape {list(header.shapes[name])}"
    return ""


def _too_large(header: GgufHeader) -> str:
    """Metadata key whose size does not match the tensors; empty if all match."""
    kind = header.values.get("general.architecture")
    numbers = sum(math.prod(shape) for shape in header.shapes.values())

    def of(key: str) -> int | None:
        value = header.values.get(f"{kind}.{key}")
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    found = [int(name.split(".")[1]) + 1 for name in header.shapes if re.match(r"blk\.\d{1,9}\.", name)]
    blocks, width, positions = of("block_count"), of("embedding_length"), of("context_length")
    if found and blocks is not None and (blocks < max(found) or blocks > max(found) + len(header.shapes)):
        return f"block_count is {blocks:,}, and it has tensors of {max(found):,} blocks"
    embedded = header.shapes.get("token_embd.weight")
    if embedded is not None and width is not None and width not in embedded:
        return f"embedding_length is {width:,}, and token_embd.weight has the shape {list(embedded)}"
    if positions is not None and not 0 < positions < MAX_CONTEXT:
        return f"context_length is {positions:,}"
    if not numbers:
        return "it has no tensors"
    sizes = [(key, of(key)) for key in SIZES]
    wrong = next(((key, size) for key, size in sizes if size is not None and not 0 < size <= numbers), None)
    return "" if wrong is None else f"{wrong[0]} is {wrong[1]:,}, and its tensors contain {numbers:,} numbers"


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _string(file: BinaryIO, size: int) -> str:
    (length,) = _unpack(file, "<Q")
    data = file.read(length) if length <= size else b""
    if len(data) != length:
        raise EOFError
    return data.decode("utf-8")


def _value(file: BinaryIO, kind: int, size: int) -> Any:
    return _string(file, size) if kind == STRING else _unpack(file, NUMBERS[kind])[0]


def _skip_array(file: BinaryIO, left: int, depth: int = 1) -> int:
    """Skip a list. `left` is the number of items that lists may still have; returns the number after this one."""
    kind, count = _unpack(file, "<IQ")
    left -= count
    if left < 0 or depth > MAX_DEPTH:
        raise EOFError
    if kind == STRING:
        for _ in range(count):
            file.seek(_unpack(file, "<Q")[0], 1)
    elif kind == ARRAY:
        for _ in range(count):
            left = _skip_array(file, left, depth + 1)
    else:
        file.seek(count * struct.calcsize(NUMBERS[kind]), 1)
    return left
