"""Standard streams of a process that logs to a run: secrets are removed, and write errors are ignored."""

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
    """Writes to a descriptor and ignores system errors, since a log line must not end a run."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def write(self, data: Buffer) -> int:
        """Write what fits, and report all bytes as written."""
        view = memoryview(data).cast("B")
        with suppress(OSError):
            os.write(self._descriptor, view)
        return len(view)


def tolerate_a_full_log() -> None:
    """Replace `sys.stdout` and `sys.stderr` with streams that remove secrets and ignore a full disk."""
    sys.stdout, sys.stderr = _text(1), _text(2)


def _text(descriptor: int) -> RedactedStream:
    raw: Any = _Tolerant(descriptor)
    return RedactedStream(raw, "utf-8", "backslashreplace", write_through=True)
