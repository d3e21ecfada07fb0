"""Calls a reward function, and takes nothing for a number that is none."""

from __future__ import annotations

import math
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llf_core.rewards.signature import OURS, Signature
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SHOWN = 60
"""Characters of a prompt or an answer that a message shows."""


@dataclass(frozen=True)
class Answered:
    """What a model said, and what it was asked.

    Attributes:
        messages: the conversation before the answer, `{"role", "content"}` each.
        answer: what the model said.
        tokens: the ids of the answer.
        row: the record of the data set that it comes from.
        expected: the answer that the data set gives; None where it gives none.
    """

    messages: Sequence[Mapping[str, Any]]
    answer: str
    tokens: Sequence[int] = ()
    row: Mapping[str, Any] = field(default_factory=dict)
    expected: str | None = None

    @property
    def prompt(self) -> str:
        """The last question."""
        asked = [one["content"] for one in self.messages if one["role"] == "user"]
        return str(asked[-1]) if asked else ""

    def told(self) -> dict[str, Any]:
        """All that a function of one answer may take, by name."""
        ours = {
            "prompt": self.prompt,
            "answer": self.answer,
            "expected": self.expected,
            "messages": [dict(one) for one in self.messages],
            "tokens": len(self.tokens),
            "row": dict(self.row),
        }
        return {name: value for name, value in self.row.items() if name not in OURS} | ours


class RewardError(UserError):
    """A reward function that failed on an answer, or gave no number.

    Attributes:
        name: the function's.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True)
class Reward:
    """A reward function by its name.

    Attributes:
        name: as the config has it.
        function: the function.
        file: where its source is, as messages call it; empty for a built-in one.
        path: the same as Python knows it.
        expects: it compares with the answer that the data set gives.
    """

    name: str
    function: Callable[..., Any]
    file: str = ""
    path: str = ""
    expects: bool = False

    @property
    def signature(self) -> Signature:
        """What it takes."""
        return Signature.of(self.function, self.name)

    def judge(self, answers: Sequence[Answered], told: Mapping[str, Any] | None = None) -> list[float | None]:
        """The rewards of some answers.

        Args:
            answers: to be judged.
            told: what a function of lists is told besides: `trainer_state` and the like.

        Returns:
            A number each; None where the function does not apply.

        Raises:
            RewardError: it raised, or gave NaN, a text, or a list of another length.
        """
        signature = self.signature
        if not signature.listed:
            return [self._number(self._call([one], signature.choose(one.told())), one) for one in answers]
        columns = dict.fromkeys(name for one in answers for name in one.row)
        offered: dict[str, Any] = {name: [one.row.get(name) for one in answers] for name in columns}
        offered |= {
            "prompts": [[dict(message) for message in one.messages] for one in answers],
            "completions": [[{"role": "assistant", "content": one.answer}] for one in answers],
            "completion_ids": [list(one.tokens) for one in answers],
            **(told or {}),
        }
        found = self._call(answers, signature.choose(offered))
        found = found.tolist() if hasattr(found, "tolist") else found
        if not isinstance(found, list | tuple) or len(found) != len(answers):
            what = f"{len(found)} values" if isinstance(found, list | tuple) else f"a {type(found).__name__}"
            raise self._error(answers[0], f"returned {what} for {len(answers)} answers. Expected a list of one each")
        return [self._number(value, one) for value, one in zip(found, answers, strict=True)]

    def _call(self, answers: Sequence[Answered], told: dict[str, Any]) -> Any:
        try:
            return self.function(**told)
        except Exception as error:
            said = str(error).strip().splitlines()
            what = f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
            raise self._error(answers[0], f"raised {what.rstrip('.')}{self._line(error)}") from error

    def _number(self, value: Any, answered: Answered) -> float | None:
        if value is None:
            return None
        if hasattr(value, "item"):  # of numpy and torch
            with suppress(ValueError, RuntimeError, TypeError):  # where there are several
                value = value.item()
        if not isinstance(value, int | float):
            raise self._error(answered, f"returned {_shown(repr(value))}. Expected a number, or None")
        number = as_float(value)
        if not math.isfinite(number):
            raise self._error(answered, f"returned {number}. Expected a finite number, or None")
        return number

    def _line(self, error: BaseException) -> str:
        """Where in the function's own file it was raised."""
        if not self.path:
            return ""
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == self.path]
        return f" in line {lines[-1]} of {self.file}" if lines else ""

    def _error(self, answered: Answered, what: str) -> RewardError:
        asked, said = _shown(answered.prompt), _shown(answered.answer)
        where = f'On the prompt "{asked}" and the answer "{said}"'
        return RewardError(self.name, f"{where} the reward function {self.name} {what}.")


def as_float(value: float) -> float:
    """A number as a float: one that is beyond all floats is infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _shown(text: str) -> str:
    """A text in one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1].rstrip() + "…"
