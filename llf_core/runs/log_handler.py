"""Destination of LLF's log messages: stdout (log.txt) in a trainer, the terminal in a command."""

from __future__ import annotations

import logging
import sys
from typing import Literal

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
