"""One writer at a time for what all processes of a machine share."""

from __future__ import annotations

import fcntl
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llf_core.door import open_file
from llf_core.runs.folder import home

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def shared_lock(name: str, waiting: str) -> Iterator[None]:
    """Holds `LLF_HOME/locks/<name>` (flock); the system frees it when the process ends, however it ends.

    Args:
        name: of the resource.
        waiting: printed once where another process holds it.
    """
    path = home() / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(open_file(path, flags=os.O_WRONLY | os.O_CREAT), "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(waiting, file=sys.stderr, flush=True)  # noqa: T201 - a command's stdout stays its result
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
