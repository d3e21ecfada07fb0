"""The log of a process: where messages go, streams that remove secrets and ignore a full disk, and its last lines."""

from __future__ import annotations

import atexit
import ctypes
import io
import logging
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from llf_core.redaction.redact_text import RedactedStream

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

LOGGER = logging.getLogger("llf_core")


class _StandardStream(logging.Handler):
    """Writes to the current `sys.stdout` or `sys.stderr`, which a trainer and tests replace."""

    def __init__(self, stream: Literal["stdout", "stderr"]) -> None:
        super().__init__(logging.INFO)
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print(self.format(record), file=getattr(sys, self._stream), flush=True)
        except Exception:  # noqa: BLE001 - logging's own way: a message that cannot be written ends nothing
            self.handleError(record)


def log_to(stream: Literal["stdout", "stderr"], layout: str = "%(message)s") -> None:
    """Send LLF's messages of level INFO and above to a standard stream, and nowhere else."""
    handler = _StandardStream(stream)
    handler.setFormatter(logging.Formatter(layout, "%H:%M:%S"))
    LOGGER.handlers = [handler]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False


def log_to_run() -> None:
    """Send LLF's messages to the run's log, with the time: `14:36:12  message`."""
    log_to("stdout", "%(asctime)s  %(message)s")


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


def exit_with(main: Callable[[], int]) -> NoReturn:
    """Call `main` and end this process with the exit code that it returns, before the interpreter destroys modules.

    Triton's library is bound with nanobind, which then lists every function that is still referenced: "nanobind:
    leaked 513 functions!". Its switch, `nb::set_leak_warnings`, can be set in C++ only. Threads are joined and the
    functions of `atexit` are called as always, and both Python's and C's buffers are flushed.
    """
    codes: list[int] = []

    def leave() -> None:
        if codes:
            logging.shutdown()  # registered earlier, so it would come later
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError, ValueError):  # a full disk, a closed stream
                    stream.flush()
            ctypes.CDLL(None).fflush(None)
            os._exit(codes[0])

    atexit.register(leave)  # before all others, which come first then
    codes.append(main())
    sys.exit(codes[0])
