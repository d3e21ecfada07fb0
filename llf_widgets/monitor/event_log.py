"""The events of a run: an index of them by type and attempt, and the event log with one line per event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.config.number_format import with_unit
from llf_core.runs.charts import EVAL_PREFIX, held_out_label, key_metrics, lowercase_label
from llf_core.runs.control import ActiveChanges
from llf_core.runs.formatting import without_escapes
from llf_widgets.monitor import formatting
from llf_widgets.monitor.key_numbers import forecast_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Event = dict[str, Any]

LINE = 500  # characters of a log line that are worth sending


class EventLog:
    """Events as rows; checkpoint and evaluation of a step share a row.

    A row has `time` (Unix seconds) and `step`, each None if the event has none, and `text`. Unknown types, and events
    with invalid fields, are skipped, since the file may come from another version.
    """

    def __init__(self) -> None:
        self._rows: list[dict[str, Any]] = []

    def add(self, events: Iterable[dict[str, Any]]) -> None:
        """Add new events, in order."""
        for event in events:
            _add(event, self._rows)

    def newest(self, limit: int) -> list[dict[str, Any]]:
        """Copies of the newest rows `{"time", "step", "text"}`, newest first."""
        return [dict(row) for row in self._rows[: -limit - 1 : -1]]


def log_rows(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows `{"time", "step", "text"}` of some events, newest first."""
    log, events = EventLog(), list(events)
    log.add(events)
    return log.newest(len(events))


def _add(event: dict[str, Any], found: list[dict[str, Any]]) -> None:
    format_event = FORMATTERS.get(event.get("type", ""))
    if format_event is None:
        return
    try:
        text = format_event(event)
    except (ArithmeticError, KeyError, TypeError, ValueError):
        return
    if not text:
        return
    if event["type"] == "state" and found and str(event.get("reason", "")).startswith(_error_in(found[-1]["text"])):
        text = str(event["state"])  # its reason stands in the line before
    step = event.get("step")
    removed = event["type"] == "checkpoint_removed"  # belongs to the checkpoint that took its place
    if found and step is not None and found[-1]["step"] is not None and (removed or found[-1]["step"] == step):
        found[-1]["text"] += f", {text}"
    else:
        found.append({"time": event.get("time"), "step": step, "text": text})


def log_lines(lines: Iterable[str]) -> list[str]:
    """Clean log lines for display: no colors, only the last state of a progress bar, at most 500 characters each."""
    clean = []
    for line in lines:
        text = without_escapes(line.rstrip("\r\n").rsplit("\r", 1)[-1])
        clean.append(text if len(text) <= LINE else text[: LINE - 1] + "…")
    return clean


def _state(event: dict[str, object]) -> str:
    reason = event.get("reason")
    return f"{event['state']}: {reason}" if reason else str(event["state"])


def _error_in(text: str) -> str:
    """The message in an error line; for other lines a text that no reason starts with."""
    return text.removeprefix("error: ") if text.startswith("error: ") else "\0"


def _data(event: dict[str, Any]) -> str:
    rows = f" in {with_unit(event['rows'], 'row')}" if event.get("rows") else ""
    text = (
        f"data: {with_unit(event['examples'], 'example')}{rows}, {with_unit(event['tokens'], 'token')}, "
        f"{event['trained_tokens']:,} trained"
    )
    lost = [f"{event[name]:,} {name}" for name in ("truncated", "dropped") if event.get(name)]
    return ", ".join([text, *lost])


def _receipt(event: dict[str, Any]) -> str:
    largest = event.get("largest")  # missing where only one of two losses is finite
    differ = "losses differ" if largest is None else f"losses differ by up to {100 * float(largest):.2g} %"
    how = "losses are identical" if event["exact"] else differ
    return f"{with_unit(event['steps'], 'step')} repeated after step {event['from_step']}: {how}"


def _model(event: dict[str, object]) -> str:
    return (
        f"model: {event['trainable']:,} of {event['parameters']:,} parameters are trainable, "
        f"{event['dtype']} on {event['device']}"
    )


def _request(event: dict[str, Any]) -> str:
    args = event.get("args") or {}
    arguments = ", ".join(f"{name} {value}" for name, value in args.items()) if event["request"] == "set" else ""
    return f"{event['request']}{' ' * bool(arguments)}{arguments} requested by {event.get('by') or 'another view'}"


def _answer(event: dict[str, object]) -> str:
    if event["ok"] and event.get("request") == "set":
        return ""  # the change itself stands in a line of its own
    word = event.get("request", "request")
    return f"{word}: {event['message']}" if event["ok"] else f"{word} refused: {event['message']}"


def _changes_text(event: dict[str, Any]) -> str:
    changes = ", ".join(f"{name} {value}" for name, value in (event.get("changes") or {}).items())
    return f" with {changes}" if changes else ""


def _bytes(event: dict[str, Any]) -> str:
    amount = event.get("bytes")
    return "" if amount is None else " ({} {})".format(*formatting.size(amount))


def _evaluation(event: dict[str, Any]) -> str:
    values = event.get("values") or {}
    loss = values.get("eval_loss")
    metrics = key_metrics(name for name in values if name.startswith(EVAL_PREFIX))
    labels = [lowercase_label(held_out_label(metric.label)) for metric in metrics]
    numbers = [formatting.value(float(values[EVAL_PREFIX + metric.name]), metric.form) for metric in metrics]
    results = [f"{label} {number}" for label, number in zip(labels, numbers, strict=True)]
    return ", ".join(["evaluation" if loss is None else f"evaluation {formatting.number(float(loss))}", *results])


def _warning(event: dict[str, object]) -> str:
    return f"warning: {event['message']}"


FORMATTERS: dict[str, Callable[[dict[str, Any]], str]] = {
    "created": lambda event: f"created as {event['name']}" if event.get("name") else "created",
    "state": _state,
    "queued": lambda event: (
        f"queued behind {len(event['ahead'])} other {'run' if len(event['ahead']) == 1 else 'runs'}"
        if event["ahead"]
        else ""
    ),
    "resumed": lambda event: f"attempt {event['attempt']} resumed from step {event['from_step']}",
    "branched": lambda event: f"branched from step {event['step']} of {event['run']}{_changes_text(event)}",
    "receipt": _receipt,
    "data": _data,
    "tokens": lambda event: str(event["message"]),
    "model": _model,
    "forecast": forecast_line,
    "request": _request,
    "answer": _answer,
    "steered": lambda event: f"{event['says']} (again)" if event.get("again") else str(event["says"]),
    "checkpoint": lambda event: f"checkpoint-{event['step']}{_bytes(event)}",
    "checkpoint_removed": lambda event: f"checkpoint-{event['step']} removed",
    "evaluation": _evaluation,
    "output": lambda event: f"result written to {event.get('path', 'output')}{_bytes(event)}",
    "warning": _warning,
    "finding": _warning,
    "error": lambda event: f"error: {event['message']}",
}


NOTICE_TYPES = ("warning", "finding", "answer", "error")
"""Event types shown next to the state."""
MARKER_TYPES = ("resumed", "steered")
"""Event types for markers in charts."""
MAX_MARKERS = 200
PRE_START_TYPES = ("created", "queued")
PASSIVE_TYPES = ("request", "answer", "steered", "schedule", "warning", "finding")
"""Event types that do not change what an attempt is doing."""


class EventIndex:
    """All events of a run in order, except `progress`, with queries in constant time."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.changes = ActiveChanges()
        self._last: dict[str, Event] = {}
        self._attempts: dict[int, _Attempt] = {}
        self._markers: list[Event] = []

    def add(self, events: Iterable[Event]) -> None:
        """Add new events, in order."""
        for event in events:
            kind = event.get("type", "")
            self._last[kind] = event
            self._attempts.setdefault(event.get("attempt", 1), _Attempt()).add(kind, event)
            if kind != "progress":
                self.events.append(event)
            if kind in MARKER_TYPES:
                self._markers.append(event)
            self.changes.add(event)

    def last(self, kind: str, attempt: int | None = None) -> Event | None:
        """The newest event of a type, of the whole run or of one attempt; None if there is none."""
        found = self._last if attempt is None else self._attempt(attempt).last
        return found.get(kind)

    def current_activity(self, attempt: int) -> Event | None:
        """The newest event that shows what an attempt is doing; None if there is none."""
        return self._attempt(attempt).activity

    def notices(self, attempt: int) -> tuple[Event, ...]:
        """Warnings, findings, answers and errors of an attempt; of repeated ones the last."""
        return self._attempt(attempt).notices()

    def markers(self) -> tuple[Event, ...]:
        """The newest events to mark in a chart, at most `MAX_MARKERS`."""
        return tuple(self._markers[-MAX_MARKERS:])

    def time_spans(self) -> list[tuple[int, float]]:
        """(attempt, Unix time) of start and end of each attempt from 1, without time in the queue."""
        return [(number, at) for number, one in self._attempts.items() if number for at in one.span]

    def _attempt(self, number: int) -> _Attempt:
        return self._attempts.get(number) or _Attempt()


class _Attempt:
    def __init__(self) -> None:
        self.last: dict[str, Event] = {}
        self.activity: Event | None = None
        self.span: tuple[float, ...] = ()
        self._notices: dict[str, Event] = {}
        self._cached: tuple[Event, ...] | None = ()

    def add(self, kind: str, event: Event) -> None:
        self.last[kind] = event
        if kind not in PASSIVE_TYPES:
            self.activity = event
        if kind not in PRE_START_TYPES and "time" in event:
            moments = (*self.span, float(event["time"]))
            self.span = (min(moments), max(moments))
        if kind in NOTICE_TYPES:
            # all that says something, so that what differs in nothing else but its time is kept once
            key = repr(sorted((name, repr(value)) for name, value in event.items() if name not in {"time", "id"}))
            self._notices.pop(key, None)
            self._notices[key] = event
            self._cached = None

    def notices(self) -> tuple[Event, ...]:
        if self._cached is None:
            self._cached = tuple(self._notices.values())
        return self._cached
