from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from llf_core.config.problem import Problem

if TYPE_CHECKING:
    from llf_core.config.problem import Fix

WHAT = {"model": "model", "dataset": "data set"}


@dataclass(frozen=True)
class Question:
    """Whether a hub has a repository.

    Attributes:
        value: the key's whole value, as it stands in a file.
        hint: ` Did you mean …?`, or nothing.
        hub: a value of the key `hub`.
    """

    kind: Literal["model", "dataset"]
    name: str
    key: str
    value: str
    hint: str = ""
    fixes: tuple[Fix, ...] = field(default=(), compare=False)
    hub: str = "huggingface"


@dataclass(frozen=True)
class Answer:
    """Answer of a hub about a repository.

    Attributes:
        there: None if it is not known.
        why: why it is not known, or which hub has not got it.
    """

    there: bool | None
    why: str = ""


def problem_from_answer(question: Question, answer: Answer) -> Problem | None:
    """Turn the answer of a hub into an error if the repository does not exist, a note if that is not known, or None."""
    if answer.there:
        return None
    what = WHAT[question.kind]
    if answer.there is None:
        message = f"The {what} {question.name!r} could not be checked: {answer.why}.{question.hint}"
        severity: Literal["error", "note"] = "note"
    else:
        message = f"There is no {what} {question.name!r} on {answer.why}, or it is private.{question.hint}"
        severity = "error"
    return Problem("unresolved", question.key, question.value, message, question.fixes, severity, keys=(question.key,))
