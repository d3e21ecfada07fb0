"""Plans a sweep over form fields, without widgets: suggested values, runs, and problems."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.config import validate
from llf_core.launch.parameter_sweep import combination_label, combinations
from llf_widgets.forms.messages import Message
from llf_widgets.forms.values import choice_options, control_kind, format_value, parse_value

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.config import FieldSpec, Problem
    from llf_widgets.forms.state import FormState

UNSET = "null"
MAX_LISTED_CHOICES = 4
MAX_MESSAGES = 6
_ORDER = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class SweepPlan:
    """Values of a sweep by key, the number of runs, and problems beyond those of the form, errors first."""

    values: Mapping[str, Sequence[Any]]
    runs: int
    messages: tuple[Message, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the values allow a start."""
        return self.runs > 0 and all(message.level != "error" for message in self.messages)


def can_sweep(spec: FieldSpec) -> bool:
    """Whether values of a field can be listed with commas: numbers and choices, not texts, which may contain commas."""
    return control_kind(spec) != "text"


def suggest_values(spec: FieldSpec, value: object) -> str:
    """Suggest values to try, for `parse_values`: around a number, or all of at most `MAX_LISTED_CHOICES` choices.

    Around means a third and three times a real number, about half a power of ten, and half and twice an integer: a
    coarse grid, chosen by this project. Around 0 are 0.01 and 0.1; of a seed, the next two. Values out of range are
    left out. For all other fields the form's own value is suggested.
    """
    if control_kind(spec) != "number":
        offered = [text for text, _ in choice_options(spec) if text]
        return ", ".join(offered) if len(offered) <= MAX_LISTED_CHOICES else format_value(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return format_value(value)
    if spec.key.endswith("seed"):
        around = [value, value + 1, value + 2]
    elif spec.type == "int":
        around = [value // 2, value, 2 * value]
    elif value == 0:
        around = [0, 0.01, 0.1]
    else:
        around = [float(f"{value / 3:.2g}"), value, float(f"{value * 3:.2g}")]
    texts = [format_value(one) for one in around if _within(spec, one)] if value >= 0 else []
    return ", ".join(dict.fromkeys(texts)) or format_value(value)


def parse_values(spec: FieldSpec, text: str) -> list[Any]:
    """Parse comma-separated values; `null` means "not set" for optional fields, and invalid values stay text."""
    pieces = (piece.strip() for piece in text.split(","))
    return [None if spec.optional and piece == UNSET else parse_value(spec, piece) for piece in pieces if piece]


def plan_sweep(state: FormState, chosen: Mapping[str, str]) -> SweepPlan:
    """Plan a sweep, with each run validated like a single one."""
    values: dict[str, list[object]] = {}
    messages: list[Message] = []
    for key, text in chosen.items():
        spec = state.specs[key]
        given = parse_values(spec, text)
        found: dict[str, object] = {}
        for value in given:
            found.setdefault(format_value(value) or UNSET, value)
        values[key] = list(found.values())
        if not found:
            messages.append(_no_values(spec, suggest_values(spec, state.value(key))))
        elif len(found) < len(given):
            repeated = ", ".join(
                one for one in found if sum((format_value(value) or UNSET) == one for value in given) > 1
            )
            messages.append(Message("note", f"{spec.label} (`{key}`) has {repeated} more than once. It is run once."))
    if not all(values.values()):
        return SweepPlan(values, 0, tuple(messages))
    try:
        runs = list(combinations(values))
    except ValueError as error:
        return SweepPlan(values, 0, (Message("error", str(error)), *messages))
    messages += _new_problems(state, runs)
    messages.sort(key=lambda message: _ORDER[message.level])
    return SweepPlan(values, len(runs), tuple(messages))


def _no_values(spec: FieldSpec, proposed: str) -> Message:
    text = (
        f"{spec.label} (`{spec.key}`) has no values. Expected {spec.expected}, or several values separated by commas."
    )
    return Message("error", text, ((f"Set to {proposed}", {spec.key: proposed}),) if proposed else ())


def _new_problems(state: FormState, runs: Sequence[Mapping[str, object]]) -> list[Message]:
    """Problems of the runs that the form itself does not have, without duplicates."""
    if state.config is None:
        return []  # what is wrong in the form comes first
    known = {problem.message for problem in validate(state.config).problems}
    found: dict[str, tuple[Problem, list[Mapping[str, object]]]] = {}
    for one in runs:
        for problem in validate({**state.config.flat(), **one}).problems:
            if problem.message not in known:
                found.setdefault(problem.message, (problem, []))[1].append(one)
    worst = sorted(found.values(), key=lambda pair: _ORDER[pair[0].severity])
    messages = [
        Message(problem.severity, _affected_runs(where, len(runs)) + problem.message) for problem, where in worst
    ]
    if len(messages) <= MAX_MESSAGES:
        return messages
    rest = messages[MAX_MESSAGES:]
    return [*messages[:MAX_MESSAGES], Message(rest[0].level, f"{len(rest)} more of this type.")]


def _affected_runs(runs: Sequence[Mapping[str, object]], of: int) -> str:
    """The runs that a message applies to, by common values, else by number; empty for all."""
    if len(runs) == of:
        return ""
    shared = {key: value for key, value in runs[0].items() if all(one[key] == value for one in runs)}
    count = f"{len(runs)} of {of} runs"
    return f"`{combination_label(shared)}` ({count}): " if shared else f"{count}: "


def _within(spec: FieldSpec, value: float) -> bool:
    minimum, maximum = (
        (-math.inf if spec.minimum is None else spec.minimum),
        (math.inf if spec.maximum is None else spec.maximum),
    )
    above, below = (-math.inf if spec.above is None else spec.above), (math.inf if spec.below is None else spec.below)
    return minimum <= value <= maximum and above < value < below
