"""The streams of a process whose output is the log of a run: without secrets, and what finds no room is left out."""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from llf_core.redaction.streams import RedactedStream

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
    """Has `sys.stdout` and `sys.stderr` leave out secrets, and what finds no room, for the rest of the process."""
    sys.stdout, sys.stderr = _text(1), _text(2)


def _text(descriptor: int) -> RedactedStream:
    raw: Any = _Tolerant(descriptor)
    return RedactedStream(raw, "utf-8", "backslashreplace", write_through=True)
