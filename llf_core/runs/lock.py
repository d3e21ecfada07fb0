"""Locks for resources that all processes of a machine share."""

from __future__ import annotations

import fcntl
import logging
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from llf_core.runs.files import open_lock
from llf_core.runs.folder import home
from llf_core.untrusted import create_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
