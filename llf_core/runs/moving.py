"""Moves, copies and replaces folders, also between disks: complete under a temporary name first, then renamed."""

from __future__ import annotations

import ctypes
import errno
import os
import secrets
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.config.name_checks.output_folder import PREVIOUS
from llf_core.runs.files import sync_file, sync_folder
from llf_core.runs.formatting import size

if TYPE_CHECKING:
    from collections.abc import Callable

READY = ".new"
"""Suffix of a complete folder that is about to take its name."""
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


def move(source: Path, target: Path) -> None:
    """Move a file, folder or link: by renaming, or to another disk by copying, flushing, renaming and removing.

    If the process is killed at any point, one of the two paths holds everything. A partial copy, or the remains of the
    source, have a hidden name, which `llf runs clean` removes among the runs and in the bin. Pipes, sockets and devices
    in a folder are lost on the way to another disk.
    """
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    else:
        return
    check_free_space(source, target.parent)
    hidden = f".new-{os.getpid()}-{secrets.token_hex(4)}"  # a partial copy is never listed
    new, old = target.with_name(hidden), source.with_name(hidden)
    try:
        if source.is_symlink():
            new.symlink_to(source.readlink())
        elif source.is_dir():
            copy_folder(source, new, links=True)
            _flush_all(new)
        else:
            shutil.copy2(source, new)
            sync_file(new)
        new.rename(target)
        try:
            sync_folder(target.parent)
            source.rename(old)
        except BaseException:
            target.rename(new)
            raise
    except BaseException:
        _remove(new)
        raise
    _remove(old)


def check_free_space(source: Path, place: Path) -> None:
    """Check that a copy of a file or folder fits on another disk; links take no space."""
    files = source.rglob("*") if source.is_dir() and not source.is_symlink() else (source,)
    needed = sum(facts.st_size for facts in (file.lstat() for file in files) if stat.S_ISREG(facts.st_mode))
    check_free_bytes(needed, place, source.name)


def check_free_bytes(needed: int, place: Path, what: str) -> None:
    """Check that a disk has room for some bytes."""
    disk = shutil.disk_usage(place)
    if needed > disk.free:
        missing, free, total = (" ".join(size(amount)) for amount in (needed - disk.free, disk.free, disk.total))
        raise OSError(
            errno.ENOSPC,
            f"{what} does not fit into {place}: the disk has {free} free of {total}, and it needs {missing} "
            "more. Free that much, then try again.",
        )


def copy_folder(
    source: Path, target: Path, copy: Callable[[str, str], object] = shutil.copy2, *, links: bool = False
) -> None:
    """Copy the regular files and folders of a folder; not pipes, sockets and devices, since reading one could block."""
    failed: list[OSError] = []

    def copy_one(old: str, new: str) -> object:
        if failed:
            raise failed[0]  # stops the walk
        try:
            return copy(old, new)
        except OSError as error:
            failed.append(error)
            raise

    try:
        shutil.copytree(source, target, symlinks=True, copy_function=copy_one, ignore=_left_out(links=links))
    except shutil.Error as error:  # a list of failures
        if failed:
            raise failed[0] from None
        first = error.args[0][0] if error.args and error.args[0] else ("", "", str(error))
        raise OSError(errno.EINVAL, str(first[2])) from None


def _left_out(*, links: bool) -> Callable[[str, list[str]], set[str]]:
    def names(folder: str, inside: list[str]) -> set[str]:
        kinds = {name: os.lstat(Path(folder, name)).st_mode for name in inside}
        kept = (stat.S_ISREG, stat.S_ISDIR, *((stat.S_ISLNK,) if links else ()))
        return {name for name, kind in kinds.items() if not any(is_kind(kind) for is_kind in kept)}

    return names


def _flush_all(folder: Path) -> None:
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            path = Path(place, name)
            if not path.is_symlink():
                sync_file(path)
        sync_folder(Path(place))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def replace_folder(new: Path, folder: Path) -> Path | None:
    """Rename a complete folder to `folder`, atomically where the system can exchange two names.

    If the process is killed, the earlier and the new folder are complete under `NAME`, `NAME.previous` and `NAME.new`;
    where names can be exchanged, `NAME` is always one of them.

    Returns:
        The earlier folder, as `NAME.previous` (or `NAME.previous-2`, …); None if there was none, or an empty one.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        new.rename(folder)
        sync_folder(folder.parent)
        return None
    ready, previous = new.rename(_free_name(folder, READY)), _free_name(folder, PREVIOUS)
    if _exchange(ready, folder):
        ready.rename(previous)
    else:
        try:
            folder.rename(previous)
            ready.rename(folder)
        except OSError:
            with suppress(OSError):  # it was not renamed, or somebody else's folder has the name by now
                previous.rename(folder)
            ready.rename(new)
            raise
    sync_folder(folder.parent)
    return previous


def _free_name(folder: Path, suffix: str) -> Path:
    number = 1
    while os.path.lexists(free := folder.with_name(f"{folder.name}{suffix}{'' if number == 1 else f'-{number}'}")):
        number += 1
    return free


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders by Linux's renameat2; False if the system or the file system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    return bool(rename(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0)
