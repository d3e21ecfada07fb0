"""Opens a file of a data set: by its type, decompressed, also from a cloud (`s3://`, `gs://`, …) through fsspec."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast

from llf_core.config.paths import COMPRESSED
from llf_core.data.errors import DataError
from llf_core.redaction import redact
from llf_core.redaction.redact_text import restore_url
from llf_core.runs import home
from llf_core.runs.disk_errors import is_disk_error

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import TypeAlias

    File: TypeAlias = "Path | CloudFile | LimitedFile"


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


T = TypeVar("T")
ANONYMOUS: dict[str, Mapping[str, object]] = {"s3": {"anon": True}, "gs": {"token": "anon"}, "gcs": {"token": "anon"}}
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}


@dataclass(frozen=True)
class CloudFile:
    """A file that is streamed from a `protocol://path` URL, with the methods of a path that readers use."""

    url: str

    @property
    def suffix(self) -> str:
        """File name extension, with the dot, by which the reader is chosen."""
        return PurePosixPath(self._path).suffix

    @property
    def stem(self) -> str:
        """File name without its extension, as readers use it of a path."""
        return PurePosixPath(self._path).stem

    @property
    def _path(self) -> str:
        return self.url.partition("?")[0]  # a signed URL has its signature behind it

    def open(self, mode: str = "rb") -> BinaryIO:
        """Open the file for streaming."""
        import fsspec

        address = full_url(self.url)
        return cast(
            "BinaryIO",
            _with_and_without_name(self.url, lambda _, options: fsspec.open(address, mode, **options).open()),
        )

    def __str__(self) -> str:
        """The URL without credentials."""
        return redact(self.url)


def fetch_file(url: str) -> Path:
    """Download a `protocol://path` file to `LLF_HOME/cache/cloud`, unless the copy there is current.

    Access to S3 and Google Cloud Storage is anonymous first, as in LLaMA-Factory, then with the credentials that fsspec
    finds in the environment. The path ends with the file's name, by which readers recognize its type.
    """
    import fsspec

    address = full_url(url)
    folder = home() / "cache" / "cloud"
    folder.mkdir(parents=True, exist_ok=True)
    keep = {"cache_storage": str(folder), "check_files": True}

    def fetched(protocol: str, options: Mapping[str, object]) -> str | list[str]:
        paths: str | list[str] = fsspec.open_local(f"filecache::{address}", filecache=keep, **{protocol: options})
        return paths

    found = _with_and_without_name(url, fetched)
    # With the original suffix, by which readers recognize the type.
    path = Path(found if isinstance(found, str) else found[0])
    named = path.with_name(f"{path.name}-{redact(url).partition('?')[0].rpartition('/')[2]}")
    named.unlink(missing_ok=True)
    with suppress(FileExistsError):  # another process has just made it, of the same copy
        named.hardlink_to(path)
    return named


def full_url(url: str) -> str:
    """Restore the credentials of a URL that a run's config stores as `***`."""
    try:
        return restore_url(url)
    except LookupError as error:
        raise DataError(str(error.args[0])) from None


def _with_and_without_name(url: str, act: Callable[[str, Mapping[str, object]], T]) -> T:
    """Access a file anonymously first, if its protocol supports that, then with credentials."""
    protocol, url = url.partition("://")[0], redact(url)
    attempts: list[Mapping[str, object]] = [ANONYMOUS[protocol], {}] if protocol in ANONYMOUS else [{}]
    for number, options in enumerate(attempts, start=1):
        try:
            return act(protocol, options)
        except (ImportError, ValueError) as error:
            package = PACKAGES.get(protocol)
            todo = f"pip install {package}" if package else "use a protocol that fsspec supports"
            raise DataError(f"{url} cannot be opened: {_line(error)}. What to do: {todo}.") from None
        except FileNotFoundError:
            raise DataError(f"There is no file {url}.") from None
        except Exception as error:
            if isinstance(error, OSError) and is_disk_error(error):  # of the cache, which no other credentials mend
                raise
            if number == len(attempts):  # each protocol has errors of its own
                raise DataError(
                    f"{url} cannot be read: {_line(error)}. Check the name, the network and the credentials."
                ) from None
    raise AssertionError


def _line(error: BaseException) -> str:
    return redact((str(error).splitlines() or [type(error).__name__])[0].rstrip("."))
