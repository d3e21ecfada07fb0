"""Changes to a live run: which settings may change, and which recorded changes are active at a step.

A change is an event `steered{step, changes, id, cancels?}`. It takes effect after optimizer step `step`. A run that is
resumed from an earlier step, or replayed, applies it again at the same step.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from llf_core.runs.event_fields import is_count, valid_fields
from llf_core.runs.files import json_bytes, replace_file
from llf_core.runs.jsonl import records
from llf_core.untrusted import HISTORY_BYTES, read_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from llf_core.runs.folder import RunFolder

MIN_RATE, MAX_RATE = 1e-20, 1.0  # ratio up to which a schedule can be rescaled in float64
MAX_SHOWN_INTEGER = 10**40
MAX_STEPS = 10**12  # schedules compute with it exactly


@dataclass(frozen=True)
class Change:
    """New values by name (see `check_changes`), in effect after optimizer step `step`."""

    step: int
    changes: dict[str, Any]
    id: str

    def json(self) -> dict[str, Any]:
        """The change as stored in `replay.json`; `parse_change` reads it."""
        return {"step": self.step, "changes": self.changes, "id": self.id}


def check_changes(changes: Mapping[str, object]) -> dict[str, Any]:
    """Validate changes and convert them to the types that the trainer expects.

    `learning_rate` is the peak of the schedule, `max_steps` the last step of the run and of its schedule, `watch` a
    sample prompt to add, `evaluate` true.

    Raises:
        ValueError: there are none, a name is unknown, or a value is invalid; the message is for the user.
    """
    if not changes:
        raise ValueError(f"No change was given. Expected one of {', '.join(CHECKS)}.")
    unknown = next((name for name in changes if name not in CHECKS), None)
    if unknown is not None:
        raise ValueError(f"{str(unknown)[:40]!r} cannot be changed in a live run. Expected one of {', '.join(CHECKS)}.")
    return {name: CHECKS[name](value) for name, value in changes.items()}


def _number(value: object) -> int | float | None:
    """A number as Python's own, also one of numpy; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    return int(value) if isinstance(value, Integral) else float(value) if isinstance(value, Real) else None


def _rate(value: object) -> float:
    number = _number(value)
    if number is None or not MIN_RATE <= number <= MAX_RATE:
        raise ValueError(f"learning_rate is {_shown(value)}. Expected a number above 0 and at most {MAX_RATE:g}.")
    return float(number)


def _step(value: object) -> int:
    number = _number(value)
    if number is None or not 1 <= number <= MAX_STEPS or number != int(number):
        raise ValueError(f"max_steps is {_shown(value)}. Expected an integer of steps from 1 to {MAX_STEPS:,}.")
    return int(number)


def _prompt(value: object) -> str:
    from llf_core.config.sections import LONGEST_PROMPT

    if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_PROMPT:
        found = f"has {len(value):,} characters" if isinstance(value, str) else f"is a {type(value).__name__}"
        if isinstance(value, str) and value.isspace():
            found = "is blank"
        raise ValueError(f"The prompt {found}. Expected a string of 1 to {LONGEST_PROMPT:,} characters.")
    if any("\ud800" <= sign <= "\udfff" for sign in value):
        raise ValueError("The prompt contains a lone surrogate, which tokenizers cannot encode.")
    return value.strip()


def _true(value: object) -> bool:
    if value is not True:
        raise ValueError(f"evaluate is {_shown(value)}. Expected true.")
    return True


def _shown(value: object) -> str:
    if isinstance(value, int) and abs(value) >= MAX_SHOWN_INTEGER:
        return "a number of more than 40 digits"
    return str(value)[:40] if value is None or isinstance(value, str | int | float) else f"a {type(value).__name__}"


CHECKS: dict[str, Callable[[object], object]] = {
    "learning_rate": _rate,
    "max_steps": _step,
    "watch": _prompt,
    "evaluate": _true,
}


def read_changes(folder: RunFolder) -> list[Change]:
    """Read the changes that define the current state of a run, by step, without cancelled ones.

    A change by the user cancels scheduled changes of the same setting. Changes that a replaying run has not reached yet
    are included, so that a branch of it repeats them too.
    """
    changes = ActiveChanges(_planned_changes(folder))
    for event in records(folder.events):
        changes.add(valid_fields(event))
    return list(changes.active())


class ActiveChanges:
    """The changes that remain active after a sequence of events. Updated incrementally."""

    def __init__(self, planned: Iterable[Change] = ()) -> None:
        self._found: dict[str, Change] = {change.id: change for change in planned}
        self._cancelled: set[str] = set()
        self._active: tuple[Change, ...] | None = None
        self._values_by_name: dict[str, tuple[list[int], list[object]]] = {}

    def add(self, event: Mapping[str, object]) -> None:
        """Process the next event of a run; events other than `steered` have no effect."""
        if event.get("type") != "steered":
            return
        self._active = None
        change = parse_change(event)
        if change is not None:
            self._found[change.id] = change
            self._cancelled.discard(change.id)
        cancels = event.get("cancels")
        self._cancelled.update(map(str, cancels) if isinstance(cancels, list) else ())

    def active(self) -> tuple[Change, ...]:
        """The active changes, by step."""
        if self._active is None:
            left = (one for one in self._found.values() if one.id not in self._cancelled)
            self._active = tuple(sorted(left, key=lambda one: one.step))
            self._values_by_name = {}
            for one in self._active:
                for name, value in one.changes.items():
                    steps, values = self._values_by_name.setdefault(name, ([], []))
                    steps.append(one.step)
                    values.append(value)
        return self._active

    def value_at(self, name: str, step: int) -> Any:
        """The last value set for a setting up to a step, in effect after it; None if it was not changed until then."""
        self.active()
        steps, values = self._values_by_name.get(name, ([], []))
        place = bisect_right(steps, step)
        return values[place - 1] if place else None


def write_replay(folder: RunFolder, changes: Iterable[Change]) -> None:
    """Schedule changes in a run that has not started, at the steps at which another run made them."""
    replace_file(folder.replay, json_bytes({"v": 1, "changes": [change.json() for change in changes]}))


def _planned_changes(folder: RunFolder) -> list[Change]:
    stored = read_object(folder.replay, HISTORY_BYTES).get("changes")
    stored = [one for one in stored if isinstance(one, dict)] if isinstance(stored, list) else []
    return [change for change in map(parse_change, stored) if change is not None]


def parse_change(event: Mapping[str, object]) -> Change | None:
    """Parse a `steered` event; None if it is invalid or of a later version."""
    step, changes = event.get("step"), event.get("changes")
    if not isinstance(step, int) or not is_count(step) or not isinstance(changes, dict):
        return None
    try:
        return Change(step, check_changes(changes), str(event.get("id", "")))
    except ValueError:
        return None
