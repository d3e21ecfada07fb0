from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.runs.change_journal import ActiveChanges

if TYPE_CHECKING:
    from collections.abc import Iterable

    Event = dict[str, Any]

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
