"""Small files that are replaced whole: a reader sees the old one or the new one, never a part."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from llf_core.door import open_file
from llf_core.redaction import redact_nested
from llf_core.runs.fault_points import reach
from llf_core.runs.jsonl import spelled

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LOCK_SECONDS = 10.0
NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


def replace_file(
    path: Path, data: bytes, *, sync: bool = False, temporary: str | None = None, point: str | None = None
) -> None:
    """Writes `data` under another name in the same folder, then renames it to `path`.

    Args:
        path: the file to replace or make.
        data: its whole content.
        sync: whether to flush file and folder to the disk before returning.
        temporary: the other name; one that no other writer uses at the same time.
        point: its name among the fault points; unset, the file's without its ending.

    Raises:
        OSError: nothing was changed; what was written under the other name is removed.
    """
    point = point or path.stem
    new = path.with_name(temporary or f".{path.name}.{os.getpid()}.{time.monotonic_ns():x}")
    try:
        new.unlink(missing_ok=True)  # of a kill before, or a link that somebody put there
        with os.fdopen(open_file(new, flags=os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            file.write(data)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        reach(f"{point}.written")
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    reach(f"{point}.renamed")
    if sync:
        sync_folder(path.parent)


def open_to_append(path: Path) -> BinaryIO:
    """A regular file that is appended to; made where there is none."""
    return os.fdopen(open_file(path, flags=os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab")


def sync_file(path: Path) -> None:
    """Flushes a file's content to the disk.

    Raises:
        OSError: it is not a file that can be opened, or the disk fails.
    """
    descriptor = open_file(path)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Flushes a folder's entries to the disk, so that a rename in it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def json_bytes(value: dict[str, Any]) -> bytes:
    """A JSON object as an indented file, without secrets; a number that is not finite is spelled out."""
    text = json.dumps(spelled(redact_nested(value)), ensure_ascii=False, indent=1, allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def special_file(folder: Path) -> str | None:
    """The name of a pipe, a socket or a device in a folder, or of a link to one: reading it might never end."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.is_file() and not entry.is_dir() and os.path.exists(entry.path):  # noqa: PTH110
                    return entry.name
    except OSError:  # no folder, or nobody may look into it: reading it says so
        pass
    return None


def open_lock(path: Path) -> int:
    """Opens a lock; one that another user has made may be held by who only reads it.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    try:
        return open_file(path, flags=os.O_RDWR | os.O_CREAT)
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise
        try:
            return open_file(path)
        except FileNotFoundError:
            raise error from None


@contextmanager
def locked(path: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Holds the lock of a run while it reads, changes and replaces one of its small files.

    On a file system without locks (some network drives) it goes on without one: supervisor and trainer write
    at different times there too, only not provably.

    Raises:
        TimeoutError: another process held the lock for `seconds`.
        OSError: it cannot be opened, or is no regular file.
    """
    descriptor = open_lock(path)
    try:
        _take(descriptor, path, time.monotonic() + seconds)
        try:
            yield
        finally:
            # Closing would not do: a process forked meanwhile holds the same lock through its copy.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path, until: float) -> None:
    pause = 0.0005
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise TimeoutError(
                    f"{path.parent.name}/{path.name} is locked by another process for more than {LOCK_SECONDS:g} s. "
                    "Expected a lock of milliseconds: look for a stopped (Ctrl-Z) process of this run."
                ) from None
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        except OSError as error:
            if error.errno not in NO_LOCKS_HERE:
                raise
            return
        else:
            return
