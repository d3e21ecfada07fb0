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
class CheckResult:
    """Problems found on this machine, and questions for a hub."""

    problems: tuple[Problem, ...] = ()
    questions: tuple[Question, ...] = ()

    def __add__(self, other: CheckResult) -> CheckResult:
        return CheckResult(self.problems + other.problems, self.questions + other.questions)


def replacement_fixes(config: RunConfig, spec: FieldSpec, name: str, meant: str | None) -> tuple[Fix, ...]:
    """The fix that replaces a name in the value of a key with the one that was probably meant, if any."""
    if meant is None:
        return ()
    value = config.get(spec.key)
    several = isinstance(value, tuple)
    mended = plain(tuple(meant if one == name else one for one in value)) if several else meant
    return (Fix(f"Use {meant}", {spec.key: mended}),)


def question_with_hint(  # noqa: PLR0913, PLR0917 - the parts of a question
    kind: Literal["model", "dataset"], name: str, key: str, value: str, meant: str | None, fixes: tuple[Fix, ...]
) -> Question:
    """Create a question for a hub, whose hint is the name that was probably meant."""
    return Question(kind, name, key, value, f" Did you mean {meant!r}?" if meant else "", fixes)
