"""Opens regular files only, never follows links below a root folder, and limits the number of bytes read."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.redaction.file_modes import file_mode
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator

STATE_BYTES = 1 << 20
"""Maximum size of a small file: status, meta, env, queue, config, resolved, complete.json."""
MODEL_SETTINGS_BYTES = 4 << 20
"""Maximum size of a settings file of a model or adapter, and of a chat template: the largest have some 10**5 bytes."""
HISTORY_BYTES = 256 << 20
"""Maximum size of a file that grows with the run and is read as a whole: replay.json, trainer_state.json."""
REQUEST_BYTES = 64 << 10
OPEN_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
SYSTEM_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""Errors caused by the system (full disk, too many open files), not by the file."""
NOT_OF_THE_FILE = SYSTEM_ERRORS | {errno.ENOENT}
"""Errors that are no reason to refuse a file: those of the system, and that there is none."""
FILE_KINDS = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class UnreadableError(UserError, OSError):
    """A file that was refused: not a regular file, behind a link, too large, or not readable for this user.

    Attributes:
        name: the file's path relative to `root`. Never an absolute path of this machine, since pages show the message.
    """

    def __init__(self, number: int, name: str, why: str) -> None:
        """Build the message `<name> <why>`.

        Args:
            number: error number, see `errno`.
            why: rest of the sentence, for example "is a link. Expected a regular file."
        """
        OSError.__init__(self, number, f"{name} {why}", name)
        self.message, self.what_to_do, self.name = str(self.strerror), "", name


def open_file(path: Path, root: Path | None = None, flags: int = os.O_RDONLY, mode: int = 0) -> int:
    """Open a regular file, by default an existing one. Never blocks, and follows no link below `root`.

    Args:
        root: folder that must contain the file. No part of the path below it may be a link or `..`. Default: the file's
            own folder.
        flags: flags for `os.open`.
        mode: permissions of a file that the flags create; see `create_file`.

    Raises:
        UnreadableError: the file is refused.
    """
    _check_below(path, root)
    with _open_parent(path, root) as (folder, name):
        try:
            descriptor = os.open(path.name if folder is not None else path, flags | OPEN_FLAGS, mode, dir_fd=folder)
        except OSError as error:
            raise _open_error(error, path, name) from None
    kind = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(kind):
        os.close(descriptor)
        raise UnreadableError(errno.EINVAL, name, f"is {_kind(kind)}. Expected a regular file.")
    return descriptor


def real_path(path: Path) -> Path:
    """Follow the links of a path. A loop of links stays as it is, where `Path.resolve` raises up to Python 3.12."""
    try:
        return Path(os.path.realpath(path))
    except OSError:
        return path


def leads_to_file(path: Path) -> bool:
    """Whether a path leads to a regular file, also through links; False where `Path.is_file` would raise an error."""
    return os.path.isfile(path)  # noqa: PTH113


def leads_to_folder(path: Path) -> bool:
    """Whether a path leads to a folder, also through links; False where `Path.is_dir` would raise an error."""
    return os.path.isdir(path)  # noqa: PTH112


def create_file(path: Path, flags: int) -> int:
    """Open a regular file, and create it with the permissions of a run's files if it is missing."""
    return open_file(path, flags=flags | os.O_CREAT, mode=file_mode())


def read_bytes(path: Path, max_bytes: int = STATE_BYTES, root: Path | None = None) -> bytes:
    """Read a regular file as a whole, if it is no larger than `max_bytes`; `root` as in `open_file`."""
    descriptor = open_file(path, root)
    try:
        size = os.fstat(descriptor).st_size
        data = _read(descriptor, max_bytes + 1, path, root) if size <= max_bytes else b""
    finally:
        os.close(descriptor)
    if size > max_bytes or len(data) > max_bytes:
        size = max(size, len(data))
        raise UnreadableError(
            errno.EOVERFLOW, _name(path, root), f"has {size:,} bytes. Expected at most {max_bytes:,}."
        )
    return data


def read_text(path: Path, max_bytes: int = STATE_BYTES, root: Path | None = None) -> str:
    """Read a regular file as UTF-8 text, if it is no larger than `max_bytes`; `root` as in `open_file`."""
    try:
        return read_bytes(path, max_bytes, root).decode("utf-8")
    except UnicodeDecodeError as error:
        why = f"is not text in UTF-8: the byte at {error.start:,} is 0x{error.object[error.start]:02x}."
        raise UnreadableError(errno.EILSEQ, _name(path, root), why) from None


def read_end(path: Path, max_bytes: int, root: Path | None = None) -> bytes:
    """Read the last `max_bytes` bytes of a regular file; `root` as in `open_file`."""
    descriptor = open_file(path, root)
    try:
        return os.pread(descriptor, max_bytes, max(0, os.fstat(descriptor).st_size - max_bytes))
    except OSError as error:
        raise _open_error(error, path, _name(path, root)) from None
    finally:
        os.close(descriptor)


def list_folder(path: Path, root: Path | None = None) -> list[str]:
    """List the names in a folder, in arbitrary order. Follows no link below `root`, by default the folder's parent."""
    _check_below(path, root)
    with _open_parent(path / "*", root or path.parent) as (folder, _):
        try:
            return os.listdir(path if folder is None else folder)  # noqa: PTH208 - of a descriptor
        except OSError as error:
            raise _open_error(error, path, _name(path, root)) from None


def is_folder(path: Path, root: Path | None = None) -> bool:
    """Whether a path is a folder, and no link at or below `root` (default: its parent); `root` itself may be a link."""
    try:
        _check_below(path, root)
        with _open_parent(path / "*", root or path.parent) as (folder, _):
            return folder is not None or leads_to_folder(path)  # None for `root` itself
    except OSError:
        return False


def _check_below(path: Path, root: Path | None) -> None:
    """Refuse a path that leads out of its root by `..`, as one that is not below it."""
    if root is not None and ".." in (parts := path.relative_to(root).parts):
        raise UnreadableError(errno.EINVAL, "/".join(parts), "leads out by `..`. Expected a path without it.")


@contextmanager
def _open_parent(path: Path, root: Path | None) -> Iterator[tuple[int | None, str]]:
    """Open a file's parent folder one path component at a time from `root`; None if the parent is `root` itself."""
    if root is None or path.parent == root:
        yield None, path.name
        return
    parts = path.relative_to(root).parts
    name = "/".join(parts)
    entered = Path()
    try:
        descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _open_error(error, root, root.name) from None
    try:
        for part in parts[:-1]:
            entered /= part
            try:
                inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | OPEN_FLAGS, dir_fd=descriptor)
            except OSError as error:
                raise _enter_error(error, part, descriptor, str(entered)) from None
            os.close(descriptor)
            descriptor = inner
        yield descriptor, name
    finally:
        os.close(descriptor)


def _enter_error(error: OSError, part: str, parent: int, name: str) -> OSError:
    """The error for a folder that cannot be entered; the same one if it is missing, or the system is at fault."""
    if error.errno in NOT_OF_THE_FILE:
        return error
    try:
        kind = os.stat(part, dir_fd=parent, follow_symlinks=False).st_mode
    except OSError:
        kind = stat.S_IFDIR
    why = f"cannot be read: {error.strerror}." if stat.S_ISDIR(kind) else f"is {_kind(kind)}. Expected a folder."
    return UnreadableError(error.errno or errno.EIO, name, why)


def _read(descriptor: int, max_bytes: int, path: Path, root: Path | None) -> bytes:
    """Read up to `max_bytes` bytes. A single `os.read` may return fewer than available."""
    parts: list[bytes] = []
    left = max_bytes
    try:
        while left > 0 and (part := os.read(descriptor, left)):
            parts.append(part)
            left -= len(part)
    except OSError as error:
        raise _open_error(error, path, _name(path, root)) from None
    return b"".join(parts)


def _name(path: Path, root: Path | None) -> str:
    return path.name if root is None else str(path.relative_to(root))


def _open_error(error: OSError, path: Path, name: str) -> OSError:
    """The error for a file that cannot be opened; the same one if it is missing, or the system is at fault."""
    if error.errno in NOT_OF_THE_FILE:
        return error
    number = error.errno or errno.EIO
    if number in {errno.ELOOP, errno.EMLINK}:
        return UnreadableError(number, name, "is a link. Expected a regular file.")
    if number in {errno.ENXIO, errno.EOPNOTSUPP}:
        return UnreadableError(number, name, "is a socket. Expected a regular file.")
    if number == errno.EISDIR:
        return UnreadableError(number, name, "is a folder. Expected a regular file.")
    if number in {errno.EACCES, errno.EPERM}:
        return UnreadableError(number, name, f"cannot be opened: {error.strerror}{_other_owner(path)}.")
    return UnreadableError(number, name, f"cannot be opened: {error.strerror}.")


def _other_owner(path: Path) -> str:
    try:
        owner = path.lstat().st_uid
    except OSError:
        return ""
    return "" if owner == os.geteuid() else f" (it belongs to another user, uid {owner})"


def _kind(mode: int) -> str:
    return next((name for test, name in FILE_KINDS if test(mode)), "another type of file")
