"""Moves and copies folders of runs, to another disk too: whole under another name first, then named."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.runs.files import sync_file, sync_folder
from llf_core.runs.formatting import size

if TYPE_CHECKING:
    from collections.abc import Callable


def move(source: Path, target: Path) -> None:
    """Moves a file or a folder: by renaming, and to another disk by copying, flushing, renaming and removing.

    Whenever the process is killed, either place holds all of it; what is half copied has a hidden name, which
    `llf runs clean` removes.

    Args:
        source: what is moved.
        target: its new path, where nothing is.

    Raises:
        OSError: it is where it was.
    """
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    else:
        return
    check_room(source, target.parent)
    new = target.with_name(f".new-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        if source.is_dir():
            copy_folder(source, new, links=True)
            _flush_all(new)
        else:
            shutil.copy2(source, new)
            sync_file(new)
        new.rename(target)
    except BaseException:
        _remove(new)
        raise
    sync_folder(target.parent)
    # Nobody lists half of it meanwhile.
    _remove(source.rename(source.with_name(f".new-{os.getpid()}-{secrets.token_hex(4)}")))


def check_room(source: Path, place: Path) -> None:
    """Refuses what does not fit on another disk before any of it is copied.

    Args:
        source: a file or a folder.
        place: the folder that it would be copied into.

    Raises:
        OSError: a sentence with the bytes that are missing.
    """
    files = source.rglob("*") if source.is_dir() else (source,)
    needed = sum(facts.st_size for facts in (file.lstat() for file in files) if stat.S_ISREG(facts.st_mode))
    disk = shutil.disk_usage(place)
    if needed > disk.free:
        missing, free, total = (" ".join(size(amount)) for amount in (needed - disk.free, disk.free, disk.total))
        raise OSError(
            errno.ENOSPC,
            f"{source.name} does not fit into {place}: the disk has {free} free of {total}, and it needs {missing} "
            "more. Free that much, then try again.",
        )


def copy_folder(
    source: Path, target: Path, copy: Callable[[str, str], object] = shutil.copy2, *, links: bool = False
) -> None:
    """Copies the regular files and the folders of a folder; pipes, sockets and devices are left out.

    Args:
        source: a folder.
        target: where nothing is yet.
        copy: copies one file.
        links: whether links are copied, as links; else they are left out too.

    Raises:
        OSError: something cannot be read or written.
    """
    failed: list[OSError] = []

    def copy_one(old: str, new: str) -> object:
        if failed:
            raise failed[0]  # the tree is given up
        try:
            return copy(old, new)
        except OSError as error:
            failed.append(error)
            raise

    try:
        shutil.copytree(source, target, symlinks=True, copy_function=copy_one, ignore=_left_out(links=links))
    except shutil.Error as error:  # a list of what failed, as texts
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
