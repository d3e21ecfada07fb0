"""Names and shapes of the weights in a safetensors file, without reading a weight."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

Shapes = dict[str, tuple[int, ...]]
_LENGTH = struct.Struct("<Q")
_LARGEST_HEADER = 100_000_000


def read_shapes(folder: Path) -> Shapes:
    """The shape of every weight in the safetensors files of a folder, by its name; empty where there are none."""
    found: Shapes = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= _header(file)
    return found


def _header(file: Path) -> Shapes:
    """Of one file; empty where its header cannot be read."""
    with file.open("rb") as stream:
        start = stream.read(_LENGTH.size)
        length = _LENGTH.unpack(start)[0] if len(start) == _LENGTH.size else _LARGEST_HEADER + 1
        if length > _LARGEST_HEADER:
            return {}
        try:
            header: dict[str, Any] = json.loads(stream.read(length))
        except ValueError:
            return {}
    return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
