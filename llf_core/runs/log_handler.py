"""Where the log messages of LLF go: in a trainer to stdout, which is log.txt; in a command to the terminal."""

from __future__ import annotations

import logging
import sys
from typing import Literal

LOGGER = logging.getLogger("llf_core")


class _StandardStream(logging.Handler):
    """Writes to the stream that the process has when it logs: a trainer and tests replace it."""

    def __init__(self, stream: Literal["stdout", "stderr"]) -> None:
        super().__init__(logging.INFO)
        self._stream = stream

    def emit(self, record: logging.LogRecord) -> None:
        """Writes one line."""
        try:
            print(self.format(record), file=getattr(sys, self._stream), flush=True)
        except Exception:  # noqa: BLE001 - logging's own way: a message that cannot be written ends nothing
            self.handleError(record)


def log_to(stream: Literal["stdout", "stderr"], layout: str = "%(message)s") -> None:
    """Sends the messages of LLF from INFO on to a stream of this process, and nowhere else.

    Args:
        stream: its name. `stderr` keeps stdout for a command's result.
        layout: of a line, as `logging.Formatter` takes it.
    """
    handler = _StandardStream(stream)
    handler.setFormatter(logging.Formatter(layout, "%H:%M:%S"))
    LOGGER.handlers = [handler]
    LOGGER.setLevel(logging.INFO)
    LOGGER.propagate = False


def log_to_run() -> None:
    """Sends the messages of LLF to the run's log: `14:36:12  message`."""
    log_to("stdout", "%(asctime)s  %(message)s")
