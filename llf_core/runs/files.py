"""Small files that are replaced atomically, and locks between all processes of a machine."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO

from llf_core.redaction import redact_nested
from llf_core.runs.folder import home
from llf_core.runs.jsonl import reach, spell_non_finite
from llf_core.untrusted import create_file, open_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path


LOCK_SECONDS = 10.0
"""Maximum seconds to wait for a lock; chosen by hand, above the duration of a change of a small file."""
NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}
DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


def replace_file(
    path: Path, data: bytes, *, sync: bool = False, temporary: str | None = None, point: str | None = None
) -> None:
    """Write `data` to a temporary file in the same folder, then rename it to `path`.

    Args:
        sync: whether to flush file and folder to disk.
        temporary: name of the temporary file, used by no other writer at the same time; None for one of this process.
        point: name of the fault point. Default: the file name without its suffix.
    """
    point = point or path.stem
    new = path.with_name(temporary or f".{path.name}.{os.getpid()}.{time.monotonic_ns():x}")
    try:
        new.unlink(missing_ok=True)  # left by a killed process, or a planted link
        with os.fdopen(create_file(new, os.O_WRONLY | os.O_EXCL), "wb") as file:
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
    """Open a regular file for appending, and create it if missing; a link in a run folder is never written through."""
    return os.fdopen(create_file(path, os.O_WRONLY | os.O_APPEND), "ab")


def sync_file(path: Path) -> None:
    """Flush a file to disk, so that it survives a power failure."""
    descriptor = open_file(path)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power failure."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def json_bytes(value: Mapping[str, object]) -> bytes:
    """Encode a JSON object with indentation, without secrets; non-finite numbers are written as strings."""
    text = json.dumps(spell_non_finite(redact_nested(dict(value))), ensure_ascii=False, indent=1, allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"


def special_file(folder: Path) -> str | None:
    """Name of a pipe, socket or device in a folder, or of a link to one: whoever opened it might wait forever."""
    try:
        with os.scandir(folder) as entries:
            return next((entry.name for entry in entries if _is_special(entry)), None)
    except OSError:  # missing or not readable: reading it raises the error
        return None


def _is_special(entry: os.DirEntry[str]) -> bool:
    try:
        return not entry.is_file() and not entry.is_dir() and os.path.exists(entry.path)  # noqa: PTH110
    except OSError:  # a loop of links
        return False


def open_lock(path: Path) -> int:
    """Open a lock file, and create it if missing; another user's is opened read-only, which suffices to lock it."""
    try:
        return create_file(path, os.O_RDWR)
    except OSError as error:
        if error.errno not in {errno.EACCES, errno.EPERM, errno.EROFS}:
            raise
        try:
            return open_file(path)
        except FileNotFoundError:
            raise error from None


@contextmanager
def locked(path: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Hold a run's lock (flock) while one of its small files is read, changed and replaced.

    On file systems without locks (some network drives) the block runs without one: supervisor and trainer write at
    different times there too, but this is not guaranteed.
    """
    descriptor = open_lock(path)
    try:
        is_locked = _take(descriptor, path, seconds)
        try:
            yield
        finally:
            # Closing is not enough: a forked process holds the same lock through its copy of the descriptor.
            if is_locked:
                fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _take(descriptor: int, path: Path, seconds: float) -> bool:
    pause, until = 0.0005, time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise TimeoutError(
                    f"{path.parent.name}/{path.name} has been locked by another process for more than "
                    f"{seconds:g} s. Look for a suspended (Ctrl-Z) process of this run."
                ) from None
            time.sleep(pause)
            pause = min(pause * 2, 0.05)
        except OSError as error:
            if error.errno not in NO_LOCKS_HERE:
                raise
            return False
        else:
            return True


logger = logging.getLogger(__name__)


@contextmanager
def shared_lock(name: str, waiting: str) -> Iterator[None]:
    """Hold the lock `LLF_HOME/locks/<name>` (flock), waiting without a limit; log `waiting` if it is taken.

    The system releases the lock when its process ends, so that a killed one blocks nobody.
    """
    descriptor = open_lock(lock_path(home(), name))
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.warning(waiting)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def lock_path(root: Path, name: str) -> Path:
    """Create a lock file with the permissions of `LLF_HOME`, for all users who may write to it; returns its path."""
    folder = root / "locks"
    if not folder.exists():
        root.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.mkdir()
            folder.chmod(root.stat().st_mode & 0o777)
    path = folder / name
    if not path.exists():
        with suppress(OSError):  # another process created it first; other errors appear on opening
            descriptor = create_file(path, os.O_WRONLY | os.O_EXCL)
            try:
                os.fchmod(descriptor, root.stat().st_mode & 0o666)
            finally:
                os.close(descriptor)
    return path
