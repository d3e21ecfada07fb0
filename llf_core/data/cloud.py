"""Files in a cloud (`s3://`, `gs://`, …), through fsspec: fetched once, and again when they have changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from llf_core.data.errors import DataError
from llf_core.runs import home

ANONYMOUS: dict[str, dict[str, Any]] = {"s3": {"anon": True}, "gs": {"token": "anon"}, "gcs": {"token": "anon"}}
PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}


def fetch_file(url: str) -> Path:
    """A copy of a file under `LLF_HOME/cache/cloud`.

    Public files are asked for first without anyone's name, as LLaMA-Factory does; then with the credentials that
    fsspec finds in the environment.

    Args:
        url: `protocol://path`.

    Raises:
        DataError: an unknown protocol or one whose package is missing, no such file, or no permission.
    """
    import fsspec

    protocol = url.partition("://")[0]
    folder = home() / "cache" / "cloud"
    folder.mkdir(parents=True, exist_ok=True)
    attempts = [ANONYMOUS[protocol], {}] if protocol in ANONYMOUS else [{}]
    for number, options in enumerate(attempts, start=1):
        try:
            keep = {"cache_storage": str(folder), "check_files": True}
            found = fsspec.open_local(f"filecache::{url}", filecache=keep, **{protocol: options})
        except (ImportError, ValueError) as error:
            package = PACKAGES.get(protocol)
            todo = f"pip install {package}" if package else "take a protocol that fsspec knows"
            raise DataError(f"{url} cannot be opened: {_line(error)}. What to do: {todo}.") from None
        except FileNotFoundError:
            raise DataError(f"There is no file {url}.") from None
        except Exception as error:  # noqa: BLE001 - each protocol has errors of its own
            if number == len(attempts):
                raise DataError(
                    f"{url} cannot be read: {_line(error)}. Check the name, the network and the credentials."
                ) from None
        else:
            # A name with its suffix: readers go by it.
            path = Path(found if isinstance(found, str) else found[0])
            named = path.with_name(f"{path.name}-{url.rpartition('/')[2]}")
            named.unlink(missing_ok=True)
            named.hardlink_to(path)
            return named
    raise AssertionError


def _line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
