"""Opens a file of a data set: by its type, decompressed, and up to a limit where only its beginning is read."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from llf_core.config.paths import COMPRESSED
from llf_core.data.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from llf_core.data.cloud_storage import CloudFile

TABLE_TYPES = ("parquet", "arrow")
"""File types that store their number of rows and allow random access."""


class LongFileError(DataError):
    """A file that is longer than the limit for reading it."""


class UnpackingError(DataError):
    """A file whose content cannot be decompressed or is truncated."""


@dataclass(frozen=True)
class LimitedFile:
    """The first `max_bytes` bytes of a decompressed text file, with the methods of a path that readers use."""

    path: Path
    max_bytes: int

    @property
    def suffix(self) -> str:
        """File name extension of the decompressed content: `.jsonl` of `rows.jsonl.gz`."""
        return f".{file_type(self.path)}"

    @property
    def stem(self) -> str:
        """File name without any extension, as readers use it of a path."""
        return self.path.name.partition(".")[0]

    def open(self, _mode: str = "rb") -> BinaryIO:
        """Open the file and decompress it, always as bytes. Reading beyond the limit raises a `LongFileError`."""
        return cast("BinaryIO", io.BufferedReader(_Counted(open_unpacked(self.path), self)))

    def __str__(self) -> str:
        return str(self.path)


if TYPE_CHECKING:
    File = Path | CloudFile | LimitedFile


class _Counted(io.RawIOBase):
    def __init__(self, file: BinaryIO, beginning: LimitedFile) -> None:
        self._file, self._beginning, self._left = file, beginning, beginning.max_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise LongFileError(f"{self._beginning} holds more than {self._beginning.max_bytes / 1e6:,.0f} MB.")
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def limit_file(path: Path, max_bytes: int) -> File:
    """Limit the decompressed bytes read of a text file. Tables are read in slices and stay unchanged."""
    return path if file_type(path) in TABLE_TYPES else LimitedFile(path, max_bytes)


def file_type(path: File) -> str:
    """File type by name, in lower case without a dot, by which the reader is chosen: `jsonl` of `rows.jsonl.gz`."""
    suffix = Path(path.stem).suffix if path.suffix.lower() in COMPRESSED else path.suffix
    return suffix.lower().removeprefix(".")


def open_unpacked(path: File) -> BinaryIO:
    """Open a file for reading its decompressed bytes."""
    suffix = path.suffix.lower()
    file = path.open("rb")
    if suffix == ".zst":
        import pyarrow as pa

        return cast("BinaryIO", io.BufferedReader(pa.CompressedInputStream(pa.PythonFile(file, "r"), "zstd")))
    openers: dict[str, Callable[[BinaryIO, str], object]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    return cast("BinaryIO", openers[suffix](file, "rb") if suffix in openers else file)


@contextmanager
def unpacking_errors(path: File) -> Iterator[None]:
    """Context manager that converts errors of a file's broken content to an `UnpackingError`."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # a full disk, no permission
        raise UnpackingError(f"{path} cannot be unpacked: {str(error).rstrip('.')}. Copy or create it again.") from None
