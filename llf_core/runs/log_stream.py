"""The stream of a process whose output is a file that may meet a full disk: what finds no room is left out."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Buffer


class _Tolerant(io.RawIOBase):
    """Writes to a descriptor; an error of the system is passed over, since a log line must end no run."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def write(self, data: Buffer) -> int:
        """Writes what there is room for, and says that all was written."""
        view = memoryview(data).cast("B")
        with suppress(OSError):
            os.write(self._descriptor, view)
        return len(view)


def tolerate_a_full_log() -> None:
    """Has `sys.stdout` and `sys.stderr` leave out what finds no room, for the rest of the process."""
    sys.stdout, sys.stderr = _text(1), _text(2)


def _text(descriptor: int) -> io.TextIOWrapper:
    raw: Any = _Tolerant(descriptor)
    return io.TextIOWrapper(raw, "utf-8", "backslashreplace", write_through=True)
