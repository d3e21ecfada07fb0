"""Zips of folders, written piece by piece: a model may have many GB."""

from __future__ import annotations

import io
import os
import zipfile
from typing import TYPE_CHECKING

from llf_core.untrusted import open_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from _typeshed import ReadableBuffer

CHUNK = 1 << 20


def files_below(root: Path) -> list[Path]:
    """Regular files below a folder, sorted, to zip them. Links are skipped: they could lead to any file of the machine.

    Each file is opened once, because an error can be reported only before a download begins.
    """
    if root.is_symlink():
        return []
    found = []
    for place, folders, names in os.walk(root):
        folders[:] = [name for name in folders if not os.path.islink(os.path.join(place, name))]  # noqa: PTH114, PTH118
        paths = (root.joinpath(place, name) for name in names)
        found += [path for path in paths if path.is_file() and not path.is_symlink()]
    found.sort()
    for path in found:  # before the answer begins, which could then only break off
        os.close(open_file(path, root))
    return found


def name_in_zip(path: Path, root: Path) -> str:
    """Path of a file below a folder, with escapes for bytes that are not UTF-8."""
    return os.fsencode(path.relative_to(root)).decode("utf-8", "backslashreplace")


def zip_chunks(root: Path, files: list[Path], top: str) -> Iterator[bytes]:
    """Bytes of an uncompressed zip of files (see `files_below`) in a folder `top`, about 1 MiB at a time."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
        for path in files:
            name = f"{top}/{name_in_zip(path, root)}"
            info = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
            with os.fdopen(open_file(path, root), "rb") as source, archive.open(info, "w", force_zip64=True) as target:
                while data := source.read(CHUNK):
                    target.write(data)
                    yield sink.take()
    yield sink.take()


class _Sink(io.RawIOBase):
    """A write-only file that keeps data until it is taken, so that `zipfile` can write to a generator."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []

    def write(self, data: ReadableBuffer) -> int:
        chunk = bytes(data)
        self._parts.append(chunk)
        return len(chunk)

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data
