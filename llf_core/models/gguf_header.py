"""The metadata of a GGUF file, without its weights and its long lists (no torch, no gguf package)."""

from __future__ import annotations

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


@dataclass(frozen=True)
class GgufHeader:
    """What a GGUF file says of itself.

    Attributes:
        values: the metadata, lists left out, e.g. `general.architecture`, `general.license`.
        shapes: of its tensors by name.
    """

    values: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]


def read_gguf_header(path: Path) -> GgufHeader:
    """Reads the metadata and the list of tensors (format versions 2 and 3, little-endian).

    Raises:
        ModelError: it is no GGUF file, or it is cut.
    """
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise ModelError(f"{path} does not start as a GGUF file. Copy or download it again.")
        try:
            return _read(file, path)
        except (struct.error, UnicodeDecodeError, KeyError, EOFError) as error:
            raise ModelError(f"{path} is a GGUF file that is cut or damaged. Copy or download it again.") from error


def _read(file: BinaryIO, path: Path) -> GgufHeader:
    version, tensors, entries = _unpack(file, "<IQQ")
    if version not in VERSIONS:
        raise ModelError(f"{path} has GGUF version {version}. Expected 2 or 3; convert the model again.")
    values = {}
    for _ in range(entries):
        key = _string(file)
        (kind,) = _unpack(file, "<I")
        if kind == ARRAY:
            _skip_array(file)
        else:
            values[key] = _value(file, kind)
    shapes = {}
    for _ in range(tensors):
        name = _string(file)
        (rank,) = _unpack(file, "<I")
        shapes[name] = tuple(reversed(_unpack(file, f"<{rank}Q")))
        _unpack(file, "<IQ")  # type and offset
    return GgufHeader(values, shapes)


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    return struct.unpack(layout, file.read(struct.calcsize(layout)))


def _string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "<Q")
    data = file.read(length)
    if len(data) != length:
        raise EOFError
    return data.decode("utf-8")


def _value(file: BinaryIO, kind: int) -> Any:
    return _string(file) if kind == STRING else _unpack(file, NUMBERS[kind])[0]


def _skip_array(file: BinaryIO) -> None:
    kind, count = _unpack(file, "<IQ")
    if kind == STRING:
        for _ in range(count):
            file.seek(_unpack(file, "<Q")[0], 1)
    elif kind == ARRAY:
        for _ in range(count):
            _skip_array(file)
    else:
        file.seek(count * struct.calcsize(NUMBERS[kind]), 1)
