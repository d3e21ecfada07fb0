"""Reads a run's folder, live or past; keeps its place, so that each look costs only what is new."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.door import read_end
from llf_core.redaction import redact
from llf_core.runs.event_fields import checked
from llf_core.runs.jsonl import NEWS, Tail, as_number, parse
from llf_core.runs.meta import read_meta
from llf_core.runs.shown_status import shown_status

if TYPE_CHECKING:
    from llf_core.runs.folder import RunFolder
    from llf_core.runs.metric_columns import Columns
    from llf_core.runs.status import Status

MOST_RECORDS = 50_000
"""Events or samples that one look hands out: of more, the last."""
LONGEST_LOG = 4 << 20  # bytes
LONGEST_LINE = 4096  # bytes of a log line, at a guess


class RunReader:
    """One reader of a run.

    Args:
        folder: the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._columns: Columns | None = None
        self._metrics = Tail(folder.metrics)
        self._events = Tail(folder.events, NEWS)
        self._samples = Tail(folder.samples, NEWS)
        self._given = {"events": 0, "samples": 0}
        self._passed_over = {"events": 0, "samples": 0}

    def status(self) -> Status:
        """The status as it is shown: `lost` where the processes are gone without a final status.

        Raises:
            BrokenRunError: there is no readable status.
        """
        return shown_status(self.folder)

    def meta(self) -> dict[str, Any]:
        """`revision`, `name`, `tags`, `note`."""
        return read_meta(self.folder)

    def metrics(self) -> Columns:
        """All metrics so far; the same object each time, with the new lines taken in."""
        from llf_core.runs.metric_columns import Columns  # with numpy, which a supervisor starts without

        columns = self._columns or Columns()
        for data, again in self._metrics.pieces():
            if again:
                columns = Columns()
            if data:
                columns.add(data)
        self._columns = columns
        return columns

    def events(self) -> list[dict[str, Any]]:
        """The events that are new since the last call, in order; all of them at first.

        Numbers in `values` that were not finite are floats again; a field that holds no such value as it should is
        left out, see `event_fields`.
        """
        events = [checked(event) for event in self._new("events", self._events)]
        for event in events:
            if "values" in event:
                event["values"] = {
                    name: value if (number := as_number(value)) is None else number
                    for name, value in event["values"].items()
                }
        return [event for event in events if isinstance(event.get("type"), str)]

    def samples(self) -> list[dict[str, Any]]:
        """The samples that are new since the last call, in order."""
        return self._new("samples", self._samples)

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of `log.txt`; what a carriage return overwrote is left out."""
        return log_tail(self.folder, lines)

    def _new(self, name: str, tail: Tail) -> list[dict[str, Any]]:
        """The objects that were not handed out yet. A file that was replaced (copied again, say) begins as before."""
        new: list[dict[str, Any]] = []
        taken = 0  # lines
        for data, again in tail.pieces():
            lines = data.splitlines()
            if again:
                self._given[name] -= taken
                taken = 0
                self._passed_over[name] = self._given[name]
                new.clear()
            known = min(self._passed_over[name], len(lines))
            self._passed_over[name] -= known
            taken += len(lines) - known
            self._given[name] += len(lines) - known
            found = map(parse, lines[max(known, len(lines) - MOST_RECORDS) :])
            new += [record for record in found if record is not None]
            del new[:-MOST_RECORDS]
        return new


def log_tail(folder: RunFolder, lines: int = 20) -> str:
    """The last lines of a run's `log.txt`, decoded and without secrets; the empty string where there is none.

    Raises:
        UnreadableError: it is no regular file, or the system refuses it.
    """
    if lines <= 0:
        return ""
    try:
        data = read_end(folder.log, min(lines * LONGEST_LINE, LONGEST_LOG))
    except FileNotFoundError:
        return ""
    text = redact(data.decode("utf-8", "replace"))
    # A progress bar rewrites its line: only what it shows in the end is a line.
    shown_lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.rstrip("\n").split("\n")]
    return "\n".join(shown_lines[-lines:])
