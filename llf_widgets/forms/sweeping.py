"""Plans a sweep over form fields, without widgets: proposed values, runs, and problems."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.config import validate
from llf_core.launch.combinations import combination_label, combinations
from llf_widgets.forms.messages import Message
from llf_widgets.forms.values import choices, kind, parse, show

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.config import FieldSpec, Problem
    from llf_widgets.forms.state import FormState

UNSET = "null"
FEW_CHOICES = 4
MOST_MESSAGES = 6
_ORDER = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Plan:
    """A sweep before it is started.

    Attributes:
        values: distinct values by key.
        runs: number of runs; 0 if there are none.
        messages: problems beyond those of the form, errors first.
    """

    values: Mapping[str, Sequence[Any]]
    runs: int
    messages: tuple[Message, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the values allow a start."""
        return self.runs > 0 and all(message.level != "error" for message in self.messages)


def fits(spec: FieldSpec) -> bool:
    """Whether values of a field can be listed with commas: numbers and choices."""
    return kind(spec) != "text"


def propose(spec: FieldSpec, value: Any) -> str:
    """Propose values to try: around the form's own for a number, all of a short list of choices.

    Args:
        spec: the field.
        value: its value in the form.

    Returns:
        Comma-separated text for `read`; empty if the form has no value.
    """
    if kind(spec) != "number":
        offered = [text for text, _ in choices(spec) if text]
        return ", ".join(offered) if len(offered) <= FEW_CHOICES else show(value)
    if isinstance(value, str | bool) or value is None:
        return show(value)
    if spec.key.endswith("seed"):
        around = [value, value + 1, value + 2]
    elif spec.type == "int":
        around = [value // 2, value, 2 * value]
    elif value == 0:
        around = [0, 0.01, 0.1]
    else:
        around = [float(f"{value / 3:.2g}"), value, float(f"{value * 3:.2g}")]
    texts = [show(one) for one in around if _within(spec, one)] if value >= 0 else []
    return ", ".join(dict.fromkeys(texts)) or show(value)


def read(spec: FieldSpec, text: str) -> list[Any]:
    """Parse comma-separated values, in order; `null` means "not set" for optional fields.

    Args:
        spec: the field.
        text: the text.
    """
    pieces = (piece.strip() for piece in text.split(","))
    return [None if spec.optional and piece == UNSET else parse(spec, piece) for piece in pieces if piece]


def plan(state: FormState, chosen: Mapping[str, str]) -> Plan:
    """Plan a sweep; each run is validated like a single one.

    Args:
        state: the form's values.
        chosen: text of the values by key.
    """
    values: dict[str, list[Any]] = {}
    said: list[Message] = []
    for key, text in chosen.items():
        spec = state.specs[key]
        given = read(spec, text)
        found: dict[str, Any] = {}
        for value in given:
            found.setdefault(show(value) or UNSET, value)
        values[key] = list(found.values())
        if not found:
            said.append(_empty(spec, propose(spec, state.value(key))))
        elif len(found) < len(given):
            twice = ", ".join(one for one in found if sum((show(value) or UNSET) == one for value in given) > 1)
            said.append(Message("note", f"{spec.label} (`{key}`) has {twice} more than once. It is run once."))
    if not all(values.values()):
        return Plan(values, 0, tuple(said))
    try:
        runs = list(combinations(values))
    except ValueError as error:
        return Plan(values, 0, (Message("error", str(error)), *said))
    said += _against(state, runs)
    said.sort(key=lambda message: _ORDER[message.level])
    return Plan(values, len(runs), tuple(said))


def _empty(spec: FieldSpec, proposed: str) -> Message:
    text = (
        f"{spec.label} (`{spec.key}`) has no values. Expected {spec.expected}, or several values separated by commas."
    )
    return Message("error", text, ((f"Set to {proposed}", {spec.key: proposed}),) if proposed else ())


def _against(state: FormState, runs: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Problems of the runs that the form itself does not have, without duplicates."""
    if state.config is None:
        return []  # what is wrong in the form comes first
    known = {problem.message for problem in validate(state.config).problems}
    found: dict[str, tuple[Problem, list[Mapping[str, Any]]]] = {}
    for one in runs:
        for problem in validate({**state.config.flat(), **one}).problems:
            if problem.message not in known:
                found.setdefault(problem.message, (problem, []))[1].append(one)
    worst = sorted(found.values(), key=lambda pair: _ORDER[pair[0].severity])
    said = [Message(problem.severity, _where(where, len(runs)) + problem.message) for problem, where in worst]
    if len(said) <= MOST_MESSAGES:
        return said
    rest = said[MOST_MESSAGES:]
    return [*said[:MOST_MESSAGES], Message(rest[0].level, f"{len(rest)} more of this type.")]


def _where(runs: Sequence[Mapping[str, Any]], of: int) -> str:
    """The runs that a message applies to, by common values, else by number; empty for all."""
    if len(runs) == of:
        return ""
    shared = {key: value for key, value in runs[0].items() if all(one[key] == value for one in runs)}
    count = f"{len(runs)} of {of} runs"
    return f"`{combination_label(shared)}` ({count}): " if shared else f"{count}: "


def _within(spec: FieldSpec, value: float) -> bool:
    least, most = (-math.inf if spec.minimum is None else spec.minimum), (spec.maximum or math.inf)
    above, below = (-math.inf if spec.above is None else spec.above), (math.inf if spec.below is None else spec.below)
    return least <= value <= most and above < value < below
