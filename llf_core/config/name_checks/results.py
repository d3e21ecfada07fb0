"""What a look at names brings: problems, and questions for a hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llf_core.config.field_specs import plain
from llf_core.config.name_checks.hub_question import Question
from llf_core.config.problem import Fix

if TYPE_CHECKING:
    from llf_core.config.field_specs import FieldSpec
    from llf_core.config.problem import Problem
    from llf_core.config.run_config import RunConfig


@dataclass(frozen=True)
class Found:
    """What is known of some names.

    Attributes:
        problems: what stands against them.
        questions: what only a hub can tell.
    """

    problems: tuple[Problem, ...] = ()
    questions: tuple[Question, ...] = ()

    def __add__(self, other: Found) -> Found:
        return Found(self.problems + other.problems, self.questions + other.questions)


def using(config: RunConfig, spec: FieldSpec, name: str, meant: str | None) -> tuple[Fix, ...]:
    """A fix that puts the name that was meant in the place of another; none where none is known."""
    if meant is None:
        return ()
    value = config.get(spec.key)
    several = isinstance(value, tuple)
    mended = plain(tuple(meant if one == name else one for one in value)) if several else meant
    return (Fix(f"Use {meant}", {spec.key: mended}),)


def hint_of(  # noqa: PLR0913, PLR0917 - the parts of a question
    kind: Literal["model", "dataset"], name: str, key: str, value: str, meant: str | None, fixes: tuple[Fix, ...]
) -> Question:
    """A question with the name that may have been meant."""
    return Question(kind, name, key, value, f" Did you mean {meant!r}?" if meant else "", fixes)
