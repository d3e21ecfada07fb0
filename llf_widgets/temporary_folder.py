from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

PREFIX, LOCK = "llf-", ".lock"
MIN_AGE = 60.0
"""Seconds after which a folder without an owner is removed; a younger one may be about to be locked."""


class TemporaryFolder(tempfile.TemporaryDirectory[str]):
    """A temporary folder that its process owns by a lock (flock), which the system releases when the process ends.

    It is removed by `cleanup`, at the end of a `with` block, or when the object is collected. Creating one removes the
    folders of killed processes.

    Args:
        name: purpose, in the folder's name `llf-NAME-…`.
    """

    def __init__(self, name: str) -> None:
        _remove_abandoned()
        super().__init__(prefix=f"{PREFIX}{name}-", ignore_cleanup_errors=True)
        self._lock = os.open(Path(self.name) / LOCK, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def cleanup(self) -> None:
        """Remove the folder as far as the system allows it, and release its lock."""
        super().cleanup()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _remove_abandoned() -> None:
    """Remove this user's folders whose process has ended without removing them.

    Folders younger than `MIN_AGE`, and those on a file system without locks, are left.
    """
    for lock in Path(tempfile.gettempdir()).glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError):
            _remove_if_abandoned(lock)


def _remove_if_abandoned(lock: Path) -> None:
    folder = lock.parent.lstat()
    if not stat.S_ISDIR(folder.st_mode) or folder.st_uid != os.geteuid():
        return
    descriptor = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if time.time() - os.fstat(descriptor).st_mtime < MIN_AGE:
            return
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError, an OSError: its owner lives
        shutil.rmtree(lock.parent, ignore_errors=True)
    finally:
        os.close(descriptor)
