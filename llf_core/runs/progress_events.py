"""How far something is that takes its time, in a run's events."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llf_core.runs.writer import RunWriter

EVERY = 2.0
"""Seconds between two events."""


class ProgressEvents:
    """Writes an event `progress` every two seconds; where one was written, the end of the work is told too.

    Attributes:
        of: how many there are to do, if that is known.
    """

    def __init__(self, writer: RunWriter | None, what: str, of: int | None = None, **more: Any) -> None:
        """The work begins.

        Args:
            writer: of the attempt; None writes nothing.
            what: is done, as the monitor has words for it.
            of: how many there are to do, if that is known.
            more: stands in every event.
        """
        self._writer, self._told = writer, {"what": what, **more} | ({} if of is None else {"of": of})
        self.of = of
        self._next = time.monotonic() + EVERY
        self._said = False

    def __call__(self, rows: int, **more: Any) -> bool:
        """Takes note of how many are done; true where it was time to say so."""
        now = time.monotonic()
        if now < self._next and not (self._said and rows == self.of):
            return False
        self._next, self._said = now + EVERY, rows != self.of
        if self._writer is not None:
            self._writer.event("progress", **self._told, rows=rows, **more)
        return True
