"""Changes of a live run: what may be changed, and which changes of its journal hold at which step.

A change is an event `steered{step, changes, id, cancels?}`: it holds from the step after `step` on. A run that is
resumed from before it, or replayed, makes it again at the same step.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.door import HISTORY_BYTES, read_object
from llf_core.runs.event_fields import checked
from llf_core.runs.files import json_bytes, replace_file
from llf_core.runs.jsonl import records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from llf_core.runs.folder import RunFolder

LOWEST_RATE, HIGHEST_RATE = 1e-20, 1.0  # that far apart one is still scaled to the other
BEYOND = 10**40
MOST_STEPS = 10**12  # a schedule still reckons with it exactly


@dataclass(frozen=True)
class Change:
    """Something that was changed while a run went on.

    Attributes:
        step: the last optimizer step before it holds.
        changes: by name, see `check`.
        id: of the request.
    """

    step: int
    changes: dict[str, Any]
    id: str

    def json(self) -> dict[str, Any]:
        """As it stands in `replay.json`."""
        return {"step": self.step, "changes": self.changes, "id": self.id}


def check(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes as a trainer takes them.

    Args:
        changes: `learning_rate` (the schedule's peak), `max_steps` (the step that the run and its schedule end at),
            `watch` (a prompt to be answered from here on), `evaluate` (true).

    Returns:
        The same, numbers as numbers.

    Raises:
        ValueError: an unknown name, or a value out of range; one sentence.
    """
    if not changes:
        raise ValueError(f"Nothing is to be changed. Expected one of {', '.join(CHECKS)}.")
    unknown = next((name for name in changes if name not in CHECKS), None)
    if unknown is not None:
        raise ValueError(f"{str(unknown)[:40]!r} cannot be changed in a live run. Expected one of {', '.join(CHECKS)}.")
    return {name: CHECKS[name](value) for name, value in changes.items()}


def _rate(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not LOWEST_RATE <= value <= HIGHEST_RATE:
        raise ValueError(f"learning_rate is {_shown(value)}. Expected a number above 0 and at most {HIGHEST_RATE:g}.")
    return float(value)


def _step(value: Any) -> int:
    known = not isinstance(value, bool) and isinstance(value, int | float)
    if not known or not 1 <= value <= MOST_STEPS or value != int(value):
        raise ValueError(f"max_steps is {_shown(value)}. Expected a whole number of steps from 1 to {MOST_STEPS:,}.")
    return int(value)


def _prompt(value: Any) -> str:
    from llf_core.config.generation import LONGEST_PROMPT

    if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_PROMPT:
        found = f"has {len(value):,} characters" if isinstance(value, str) else f"is a {type(value).__name__}"
        raise ValueError(f"The prompt {found}. Expected a text of 1 to {LONGEST_PROMPT:,} characters.")
    if any("\ud800" <= sign <= "\udfff" for sign in value):
        raise ValueError("The prompt holds half of a character (a lone surrogate), which no tokenizer reads.")
    return value.strip()


def _yes(value: Any) -> bool:
    if value is not True:
        raise ValueError(f"evaluate is {_shown(value)}. Expected true.")
    return True


def _shown(value: Any) -> str:
    """A value as a message repeats it: its beginning, and of what has no bound its kind."""
    if isinstance(value, int) and abs(value) >= BEYOND:
        return "a number of more than 40 digits"
    return str(value)[:40] if value is None or isinstance(value, str | int | float) else f"a {type(value).__name__}"


CHECKS: dict[str, Callable[[Any], Any]] = {
    "learning_rate": _rate,
    "max_steps": _step,
    "watch": _prompt,
    "evaluate": _yes,
}


def journal(folder: RunFolder) -> list[Change]:
    """The changes that led to a run as it is: without those that a later attempt did otherwise; by step.

    What a run that replays another one has not come to yet is among them.
    """
    changes = Changes(_to_replay(folder))
    for event in records(folder.events):
        changes.add(checked(event))
    return list(changes.standing())


class Changes:
    """The changes that some events leave standing; asked again and again, it sorts only what is new.

    Args:
        planned: what was to be done anyway.
    """

    def __init__(self, planned: Iterable[Change] = ()) -> None:
        self._found: dict[str, Change] = {change.id: change for change in planned}
        self._cancelled: set[str] = set()
        self._standing: tuple[Change, ...] | None = None
        self._told: dict[str, tuple[list[int], list[Any]]] = {}

    def add(self, event: Mapping[str, Any]) -> None:
        """Takes in the next event of a run."""
        if event.get("type") != "steered":
            return
        self._standing = None
        change = change_of(event)
        if change is not None:
            self._found[change.id] = change
            self._cancelled.discard(change.id)
        self._cancelled.update(map(str, event.get("cancels") or ()))

    def standing(self) -> tuple[Change, ...]:
        """What remains, by step."""
        if self._standing is None:
            left = (one for one in self._found.values() if one.id not in self._cancelled)
            self._standing = tuple(sorted(left, key=lambda one: one.step))
            self._told = {}
            for one in self._standing:
                for name, value in one.changes.items():
                    steps, values = self._told.setdefault(name, ([], []))
                    steps.append(one.step)
                    values.append(value)
        return self._standing

    def held(self, name: str, step: int) -> Any:
        """What a run was last told of something, as far as it holds at a step; None where nothing."""
        self.standing()
        steps, values = self._told.get(name, ([], []))
        place = bisect_right(steps, step)
        return values[place - 1] if place else None


def write_replay(folder: RunFolder, changes: Iterable[Change]) -> None:
    """Has a run that is not started yet make changes at the steps at which another one made them."""
    replace_file(folder.replay, json_bytes({"v": 1, "changes": [change.json() for change in changes]}))


def _to_replay(folder: RunFolder) -> list[Change]:
    stored = read_object(folder.replay, HISTORY_BYTES).get("changes")
    stored = [one for one in stored if isinstance(one, dict)] if isinstance(stored, list) else []
    return [change for change in map(change_of, stored) if change is not None]


def change_of(event: Mapping[str, Any]) -> Change | None:
    """The change that an event tells of; None where a later version wrote one that is not known here."""
    step, changes = event.get("step"), event.get("changes")
    if not isinstance(step, int) or not isinstance(changes, dict):
        return None
    try:
        return Change(step, check(changes), str(event.get("id", "")))
    except ValueError:
        return None
