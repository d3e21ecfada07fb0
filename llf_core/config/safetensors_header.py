"""Names and shapes of the weights in a safetensors file, without reading a weight."""

from __future__ import annotations

import json
import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.config.weight_shapes import Shapes

_LENGTH = struct.Struct("<Q")
_LARGEST_HEADER = 100_000_000


def read_shapes(folder: Path) -> Shapes:
    """Shape of each weight in the safetensors files of a folder, by its name; empty without such files.

    Reads only headers. A file whose header is damaged or too large is skipped, and a weight without a shape.
    """
    found: Shapes = {}
    for file in weight_files(folder):
        entries = {name: _shape(entry) for name, entry in _header(file)[0].items()}
        found |= {name: shape for name, shape in entries.items() if shape is not None}
    return found


def read_dtypes(folder: Path) -> set[str]:
    """Dtypes of the weights in the safetensors files of a folder, such as `BF16`; unreadable headers are skipped."""
    entries = (entry for file in weight_files(folder) for entry in _header(file)[0].values())
    return {str(entry["dtype"]) for entry in entries if isinstance(entry, dict) and "dtype" in entry}


def read_bytes(folder: Path) -> int:
    """Bytes of all weights in the safetensors files of a folder as they are stored; 0 without such files.

    Unreadable headers are skipped, and weights that are not whole in their file, as after an interrupted download.
    """
    total = 0
    for file in weight_files(folder):
        entries, size = _header(file)
        offsets = (entry.get("data_offsets") for entry in entries.values() if isinstance(entry, dict))
        total += sum(one[1] - one[0] for one in offsets if isinstance(one, list) and _is_span(one, size))
    return total


def _is_span(offsets: list[object], size: int) -> bool:
    match offsets:
        case [int(begin), int(end)]:
            return 0 <= begin <= end <= size
    return False


def weight_files(folder: Path) -> list[Path]:
    """Safetensors files of a folder, sorted by name; no pipes, whose reader would wait, and no broken links."""
    return [file for file in sorted(folder.glob("*.safetensors")) if file.is_file()]


def _header(file: Path) -> tuple[dict[str, object], int]:
    """Entries of the weights in one file, by name, empty if its header cannot be read; and the bytes that follow it."""
    with file.open("rb") as stream:
        start = stream.read(_LENGTH.size)
        length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else _LARGEST_HEADER + 1
        if length > _LARGEST_HEADER:
            return {}, 0
        try:
            header: object = json.loads(stream.read(length))
        except (ValueError, RecursionError):
            return {}, 0
        size = stream.seek(0, os.SEEK_END) - _LENGTH.size - length
    if not isinstance(header, dict):
        return {}, 0
    return {name: entry for name, entry in header.items() if name != "__metadata__"}, size


def _shape(entry: object) -> tuple[int, ...] | None:
    shape = entry.get("shape") if isinstance(entry, dict) else None
    if not isinstance(shape, list) or not all(isinstance(size, int) and size >= 0 for size in shape):
        return None
    return tuple(shape)
