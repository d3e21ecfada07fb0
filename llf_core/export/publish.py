"""Puts a finished export in its place: written under a hidden name, then renamed."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from llf_core.config.name_checks.output_folder import PREVIOUS
from llf_core.export.receipt import RECEIPT, read_receipt
from llf_core.export.request import ExportError
from llf_core.runs.archive import replace_folder
from llf_core.runs.process import host

if TYPE_CHECKING:
    from pathlib import Path

HIDDEN = ".llf-export-"
"""Prefix of folders that are being written; machine and process id follow."""


def check_destination(folder: Path, *, overwrite: bool) -> None:
    """Check that an export can take a folder's name, before a model is loaded; its parent folder is made.

    Args:
        overwrite: whether an earlier export there is replaced. Nothing else ever is.

    Raises:
        ExportError: it is a file or a link, is not empty and `overwrite` is false, holds files that no export wrote or
            a damaged receipt, or its parent cannot be written.
    """
    if os.path.lexists(folder):
        if folder.is_symlink() or not folder.is_dir():
            raise ExportError(f"{folder} is a {'link' if folder.is_symlink() else 'file'}. Expected a new folder.")
        if any(folder.iterdir()):
            if not overwrite:
                raise ExportError(f"{folder} is not empty. Expected a new folder, or overwrite (--overwrite).")
            foreign = _foreign(folder)
            if foreign:
                raise ExportError(
                    f"{folder} has {foreign}, which no export wrote, so it is not replaced. Expected a new folder."
                )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            folder.with_name(f"{folder.name}{PREVIOUS}-999").lstat()  # fails if the name is too long
        work = hidden_folder(folder)
        work.mkdir()
        work.rmdir()
    except OSError as error:
        raise ExportError(f"{folder.parent} cannot be written: {error.strerror}. Expected another folder.") from error


def _foreign(folder: Path) -> str:
    """Name of an entry of a folder that its receipt does not name; empty if there is none."""
    if not (folder / RECEIPT).is_file():
        return next(path.name for path in sorted(folder.iterdir()))
    known = read_receipt(folder).files
    names = (
        path.relative_to(folder).as_posix()
        for path in sorted(folder.rglob("*"))
        if not path.is_dir() or path.is_symlink()
    )
    return next((name for name in names if name not in known and name != RECEIPT), "")


def hidden_folder(folder: Path) -> Path:
    """New name beside the destination, for an export that this process writes."""
    return folder.with_name(f"{_prefix()}{os.getpid()}-{secrets.token_hex(4)}")


def _prefix() -> str:
    """Prefix with the machine, since on a shared disk the ids of another one mean nothing."""
    return f"{HIDDEN}{hashlib.sha256(host().encode()).hexdigest()[:8]}-"


def remove_left_over(parent: Path) -> None:
    """Remove exports beside a destination whose processes on this machine were killed."""
    for path in parent.glob(f"{_prefix()}*"):
        pid = path.name.removeprefix(_prefix()).partition("-")[0]
        if pid.isdecimal() and not _runs(int(pid)):
            shutil.rmtree(path, ignore_errors=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # of another user; or no id at all, so that no export wrote it
        return True
    return True


def put(work: Path, folder: Path) -> None:
    """Give a finished export its name; an earlier export there is removed afterwards.

    Raises:
        ExportError: files that no export wrote, or a damaged receipt, have come there since `check_destination`.
    """
    foreign = _foreign(folder) if folder.is_dir() and any(folder.iterdir()) else ""
    if foreign:
        raise ExportError(f"{folder} has {foreign} by now, which no export wrote. Nothing was replaced.")
    previous = replace_folder(work, folder)
    if previous is not None and not _foreign(previous):
        shutil.rmtree(previous, ignore_errors=True)
