"""Progress of long operations, as events of the run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llf_core.runs.writer import RunWriter

INTERVAL_SECONDS = 2.0


class ProgressEvents:
    """Writes a `progress` event every two seconds, and a last one when all items of a reported operation are completed.

    Args:
        writer: the attempt's writer; None disables events.
        of: total number of items; None if unknown, and then there is no last event.
        more: further fields of every event.
    """

    def __init__(self, writer: RunWriter | None, what: str, of: int | None = None, **more: object) -> None:
        self._writer, self._fields = writer, {"what": what, **more} | ({} if of is None else {"of": of})
        self.of = of
        self._next = time.monotonic() + INTERVAL_SECONDS
        self._has_written = False

    def __call__(self, rows: int, **more: object) -> bool:
        """Report the number of completed items. Returns True if an event was due."""
        now = time.monotonic()
        if now < self._next and not (self._has_written and rows == self.of):
            return False
        self._next, self._has_written = now + INTERVAL_SECONDS, rows != self.of
        if self._writer is not None:
            self._writer.event("progress", **self._fields, rows=rows, **more)
        return True
