"""Opens regular files only, never through a link, and reads no more of them than their kind may hold."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.redaction.file_modes import file_mode

if TYPE_CHECKING:
    from collections.abc import Iterator

STATE_BYTES = 1 << 20
"""Limit of a small file: status, meta, env, queue, config, resolved, complete.json."""
HISTORY_BYTES = 256 << 20
"""Limit of a file that grows with the run and is read at once: replay.json, trainer_state.json."""
REQUEST_BYTES = 64 << 10
"""Limit of a request in `control/`."""
OPEN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
OF_THE_SYSTEM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""What says nothing of the file."""
KINDS = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class UnreadableError(OSError):
    """A file that is not read: it is no regular file, lies behind a link, is too large, or the system refuses it.

    Attributes:
        name: the file, below the folder that it must lie in: no path of this machine.
    """

    def __init__(self, number: int, name: str, why: str) -> None:
        """Says which file and why.

        Args:
            number: as in `errno`.
            name: of the file.
            why: goes on after the name, for example "is a link. Expected a regular file."
        """
        super().__init__(number, f"{name} {why}", name)
        self.name = name

    def __str__(self) -> str:
        return str(self.strerror)


def open_file(path: Path, root: Path | None = None, flags: int = os.O_RDONLY, mode: int | None = None) -> int:
    """Opens a regular file and returns its descriptor; never waits, and follows no link below `root`.

    Args:
        path: the file.
        root: the folder that it must lie in: no part of the path below is followed where it is a link. Unset, the
            file's own folder.
        flags: how to open it, as for `os.open`.
        mode: permissions of a file that is made; those of a run's files unless given.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableError: it is no regular file, or the system refuses it.
        OSError: the disk is full, or no more files can be opened.
    """
    mode = file_mode() if mode is None else mode
    with _folder_of(path, root) as (folder, name):
        try:
            descriptor = os.open(path.name if folder is not None else path, flags | OPEN, mode, dir_fd=folder)
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in OF_THE_SYSTEM:
                raise
            raise _refused(error, path, name) from None
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        raise UnreadableError(errno.EINVAL, name, f"is {_kind(kind)}. Expected a regular file: remove it.")
    return descriptor


def read_bytes(path: Path, most: int = STATE_BYTES, root: Path | None = None) -> bytes:
    """The content of a regular file.

    Args:
        path: the file.
        most: bytes that it may have.
        root: see `open_file`.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableError: it is no regular file, or larger than that.
    """
    descriptor = open_file(path, root)
    try:
        size = os.fstat(descriptor).st_size
        data = _read(descriptor, most + 1, path, root) if size <= most else b""
    finally:
        os.close(descriptor)
    if size > most or len(data) > most:
        size = max(size, len(data))
        raise UnreadableError(errno.EOVERFLOW, _name(path, root), f"has {size:,} bytes. Expected at most {most:,}.")
    return data


def read_text(path: Path, most: int = STATE_BYTES, root: Path | None = None) -> str:
    """The same as text in UTF-8.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableError: it is no regular file, too large, or not UTF-8.
    """
    try:
        return read_bytes(path, most, root).decode("utf-8")
    except UnicodeDecodeError as error:
        why = f"is not text in UTF-8: the byte at {error.start:,} is 0x{error.object[error.start]:02x}."
        raise UnreadableError(errno.EILSEQ, _name(path, root), why) from None


def read_end(path: Path, most: int, root: Path | None = None) -> bytes:
    """The last bytes of a regular file, at most so many; see `read_bytes`."""
    descriptor = open_file(path, root)
    try:
        return os.pread(descriptor, most, max(0, os.fstat(descriptor).st_size - most))
    except OSError as error:
        raise _refused(error, path, _name(path, root)) from None
    finally:
        os.close(descriptor)


def list_folder(path: Path, root: Path | None = None) -> list[str]:
    """The names in a folder, in no order.

    Raises:
        FileNotFoundError: there is no such folder.
        UnreadableError: it is no folder, lies behind a link below `root`, or the system refuses it.
    """
    with _folder_of(path / "*", root or path.parent) as (folder, _):
        try:
            return os.listdir(path if folder is None else folder)  # noqa: PTH208 - of a descriptor
        except OSError as error:
            raise _refused(error, path, _name(path, root)) from None


def is_folder(path: Path, root: Path | None = None) -> bool:
    """Whether a folder is there that is no link, nor lies behind one below `root`."""
    try:
        with _folder_of(path / "*", root or path.parent):
            return True
    except OSError:
        return False


@contextmanager
def _folder_of(path: Path, root: Path | None) -> Iterator[tuple[int | None, str]]:
    """The opened folder of a file, entered step by step from `root`; None where that is the root itself.

    Raises:
        FileNotFoundError: a folder on the way is not there.
        UnreadableError: one is no folder.
    """
    if root is None or path.parent == root:
        yield None, path.name
        return
    parts = path.relative_to(root).parts
    name = "/".join(parts)
    entered = Path()
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _refused(error, root, root.name) from None
    try:
        for part in parts[:-1]:
            entered /= part
            try:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | OPEN, dir_fd=descriptor)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise _no_folder(error, part, descriptor, str(entered)) from None
            os.close(descriptor)
            descriptor = inner
        yield descriptor, name
    finally:
        os.close(descriptor)


def _no_folder(error: OSError, part: str, parent: int, name: str) -> UnreadableError:
    """Why a folder cannot be entered."""
    try:
        kind = os.stat(part, dir_fd=parent, follow_symlinks=False).st_mode
    except OSError:
        kind = stat.S_IFDIR
    why = f"cannot be read: {error.strerror}." if stat.S_ISDIR(kind) else f"is {_kind(kind)}. Expected a folder."
    return UnreadableError(error.errno or errno.EIO, name, why)


def _read(descriptor: int, most: int, path: Path, root: Path | None) -> bytes:
    """At most so many bytes: a read may give fewer than are there."""
    parts: list[bytes] = []
    left = most
    try:
        while left > 0 and (part := os.read(descriptor, left)):
            parts.append(part)
            left -= len(part)
    except OSError as error:
        raise _refused(error, path, _name(path, root)) from None
    return b"".join(parts)


def _name(path: Path, root: Path | None) -> str:
    return path.name if root is None else str(path.relative_to(root))


def _refused(error: OSError, path: Path, name: str) -> UnreadableError:
    """What the system refused, with what stands in the file's place where that is why."""
    number = error.errno or errno.EIO
    if number in {errno.ELOOP, errno.EMLINK}:
        return UnreadableError(number, name, "is a link. Expected a regular file: remove it.")
    if number in {errno.ENXIO, errno.EOPNOTSUPP}:
        return UnreadableError(number, name, "is a socket. Expected a regular file: remove it.")
    if number == errno.EISDIR:
        return UnreadableError(number, name, "is a folder. Expected a regular file: remove it.")
    if number in {errno.EACCES, errno.EPERM}:
        return UnreadableError(number, name, f"cannot be opened: {error.strerror}{_owner(path)}.")
    return UnreadableError(number, name, f"cannot be opened: {error.strerror}.")


def _owner(path: Path) -> str:
    """Whose file it is, where it is not ours."""
    try:
        owner = path.lstat().st_uid
    except OSError:
        return ""
    return "" if owner == os.geteuid() else f" (it belongs to another user, uid {owner})"


def _kind(mode: int) -> str:
    return next((name for test, name in KINDS if test(mode)), "something else")
