"""Incremental reader of a run's folder, live or ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.redaction import redact
from llf_core.runs.config_file import read_meta
from llf_core.runs.jsonl import MAX_NEW_BYTES, Tail, as_number, parse, valid_fields
from llf_core.runs.listing import shown_status
from llf_core.untrusted import read_end

if TYPE_CHECKING:
    from llf_core.runs.folder import RunFolder
    from llf_core.runs.metric_columns import Columns
    from llf_core.runs.status import Status

MAX_RECORDS = 50_000
"""Maximum number of events or samples returned per read; of more, the last ones. Chosen by hand."""
MAX_LOG_BYTES = 4 << 20  # bytes
LINE_BYTES = 4096  # estimated bytes of a log line


class RunReader:
    """Reads a run incrementally: each call costs only what is new."""

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self._columns: Columns | None = None
        self._metrics = Tail(folder.metrics)
        self._events = Tail(folder.events, MAX_NEW_BYTES)
        self._samples = Tail(folder.samples, MAX_NEW_BYTES)
        self._returned = {"events": 0, "samples": 0}
        self._to_skip = {"events": 0, "samples": 0}

    def status(self) -> Status:
        """The effective status, as views show it: `lost` if the processes are gone without a final status."""
        return shown_status(self.folder)

    def meta(self) -> dict[str, Any]:
        """`revision`, `name`, `tags`, `note`; see `read_meta`."""
        return read_meta(self.folder)

    def metrics(self) -> Columns:
        """All metrics so far: the same object each time, updated, or a new one if the file was replaced or removed."""
        from llf_core.runs.metric_columns import Columns  # imports numpy, which a supervisor starts without

        columns = Columns() if self._columns is None else self._columns
        for data, again in self._metrics.pieces():
            if again:
                columns = Columns()
            if data:
                columns.add(data)
        self._columns = columns
        return columns

    def events(self) -> list[dict[str, Any]]:
        """Events since the last call, in order; at the first call all events.

        Of more than `MAX_RECORDS` events or `MAX_NEW_BYTES` bytes, the last ones. Non-finite numbers in `values` are
        floats. Invalid fields are removed, see `event_fields`, and events without a type left out.
        """
        events = [valid_fields(event) for event in self._new("events", self._events)]
        for event in events:
            if "values" in event:
                event["values"] = {
                    name: value if (number := as_number(value)) is None else number
                    for name, value in event["values"].items()
                }
        return [event for event in events if isinstance(event.get("type"), str)]

    def samples(self) -> list[dict[str, Any]]:
        """Samples since the last call, in order; at the first call all samples; limited as events are."""
        return self._new("samples", self._samples)

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of `log.txt`; see the function `log_tail`."""
        return log_tail(self.folder, lines)

    def _new(self, name: str, tail: Tail) -> list[dict[str, object]]:
        """Objects not returned yet. A replaced file is read from its beginning, without repeats."""
        new: list[dict[str, object]] = []
        taken = 0  # lines
        for data, again in tail.pieces():
            lines = data.splitlines()
            if again:
                self._returned[name] -= taken
                taken = 0
                self._to_skip[name] = self._returned[name]
                new.clear()
            known = min(self._to_skip[name], len(lines))
            self._to_skip[name] -= known
            taken += len(lines) - known
            self._returned[name] += len(lines) - known
            found = map(parse, lines[max(known, len(lines) - MAX_RECORDS) :])
            new += [record for record in found if record is not None]
            del new[:-MAX_RECORDS]
        return new


def log_tail(folder: RunFolder, lines: int = 20) -> str:
    """The last lines of a run's `log.txt`, decoded and without secrets.

    Of a progress bar, which rewrites its line, only the last version is returned. At most 4 KiB for each line and 4 MiB
    in all are read: of very long lines fewer are returned, and the first may lack its beginning.
    """
    if lines <= 0:
        return ""
    try:
        data = read_end(folder.log, min(lines * LINE_BYTES, MAX_LOG_BYTES))
    except FileNotFoundError:
        return ""
    text = redact(data.decode("utf-8", "replace"))
    # A progress bar rewrites its line; only the last version counts.
    shown_lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.rstrip("\n").split("\n")]
    return "\n".join(shown_lines[-lines:])
