"""Replaces a folder by another so that a process that is killed loses neither."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from llf_core.config.name_checks.output_folder import PREVIOUS
from llf_core.runs.files import sync_folder

if TYPE_CHECKING:
    from pathlib import Path

READY = ".new"
"""Suffix of a complete folder that is about to take its name."""
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


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
