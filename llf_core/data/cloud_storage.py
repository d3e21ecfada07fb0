"""Cloud files (`s3://`, `gs://`, …) through fsspec: downloaded, again when they have changed, or streamed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from llf_core.data.errors import DataError
from llf_core.redaction import redact
from llf_core.redaction.url_secrets import restore_url
from llf_core.runs import home
from llf_core.runs.disk_errors import is_disk_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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
