"""Prepares a folder once for all processes of a machine: whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from llf_core.runs.files import sync_folder
from llf_core.runs.lock import shared_lock

if TYPE_CHECKING:
    from collections.abc import Callable


def prepare_folder(
    folder: Path, *, is_whole: Callable[[Path], bool], make: Callable[[Path], Path], lock: str, waiting: str
) -> None:
    """Make a folder, if it is missing or not whole, in a hidden folder beside it, which is then renamed.

    Args:
        make: given an empty folder to work in, makes the files and returns the folder inside it that has them.
        waiting: message logged once if another process makes them.
    """
    if is_whole(folder):
        return
    with shared_lock(lock, waiting):
        if is_whole(folder):
            return
        folder.parent.mkdir(parents=True, exist_ok=True)
        for left in folder.parent.glob(f".{folder.name}.*"):
            shutil.rmtree(left, ignore_errors=True)  # left by a killed process, since this one holds the lock
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as name:
            ready = make(Path(name))
            for file in filter(Path.is_file, ready.rglob("*")):
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
            sync_folder(ready)
            if folder.exists():
                folder.replace(Path(name) / "old")
            ready.replace(folder)
            sync_folder(folder.parent)
