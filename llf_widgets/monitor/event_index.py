"""The events of a run, sorted as they come, so that a look without news costs the same however many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.runs.change_journal import ActiveChanges

if TYPE_CHECKING:
    from collections.abc import Iterable

    Event = dict[str, Any]

TOLD = ("warning", "finding", "answer", "error")
"""What stands beside the state of a run."""
MARKED = ("resumed", "steered")
"""What a chart marks."""
MARKS = 200
BEFORE = ("created", "queued")
"""What is written before a run begins."""
ASIDE = ("request", "answer", "steered", "schedule", "warning", "finding")
"""What may come between two events of what an attempt is at."""


class EventIndex:
    """What views ask of a run's events.

    Attributes:
        events: all of them in order, those of progress left out: a run of many hours tells of it every two seconds.
        changes: what was changed by hand.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.changes = ActiveChanges()
        self._last: dict[str, Event] = {}
        self._attempts: dict[int, _Attempt] = {}
        self._marked: list[Event] = []

    def add(self, events: Iterable[Event]) -> None:
        """Takes in new events, in order."""
        for event in events:
            kind = event.get("type", "")
            self._last[kind] = event
            self._attempts.setdefault(event.get("attempt", 1), _Attempt()).add(kind, event)
            if kind != "progress":
                self.events.append(event)
            if kind in MARKED:
                self._marked.append(event)
            self.changes.add(event)

    def last(self, kind: str, attempt: int | None = None) -> Event | None:
        """The newest event of a kind, of a whole run or of one attempt; None where there is none."""
        found = self._last if attempt is None else self._attempt(attempt).last
        return found.get(kind)

    def at(self, attempt: int) -> Event | None:
        """What an attempt is at: its newest event but those that may come in between."""
        return self._attempt(attempt).newest

    def told(self, attempt: int) -> tuple[Event, ...]:
        """What is told beside the state, of one attempt; of what was repeated the last time."""
        return self._attempt(attempt).told()

    def marked(self) -> tuple[Event, ...]:
        """What a chart marks: the newest, since nobody can tell more of them apart."""
        return tuple(self._marked[-MARKS:])

    def spans(self) -> list[tuple[int, float]]:
        """(attempt, Unix time) of the first and last event of each attempt of the run's own, its waiting left out."""
        return [(number, at) for number, one in self._attempts.items() if number for at in one.span]

    def _attempt(self, number: int) -> _Attempt:
        return self._attempts.get(number) or _Attempt()


class _Attempt:
    def __init__(self) -> None:
        self.last: dict[str, Event] = {}
        self.newest: Event | None = None
        self.span: tuple[float, ...] = ()
        self._told: dict[str, Event] = {}
        self._whole: tuple[Event, ...] | None = ()

    def add(self, kind: str, event: Event) -> None:
        self.last[kind] = event
        if kind not in ASIDE:
            self.newest = event
        if kind not in BEFORE and "time" in event:
            moments = (*self.span, float(event["time"]))
            self.span = (min(moments), max(moments))
        if kind in TOLD:
            # all that says something, so that what differs in nothing else but its time is kept once
            mark = repr(sorted((name, repr(value)) for name, value in event.items() if name not in {"time", "id"}))
            self._told.pop(mark, None)
            self._told[mark] = event
            self._whole = None

    def told(self) -> tuple[Event, ...]:
        if self._whole is None:
            self._whole = tuple(self._told.values())
        return self._whole
