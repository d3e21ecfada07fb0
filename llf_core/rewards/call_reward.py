"""Calls reward functions and validates their results."""

from __future__ import annotations

import math
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llf_core.rewards.signature import COMPLETION_PARAMETERS, Signature
from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.rewards.signature import RewardFunction

SHOWN = 60
"""Characters of a prompt or an answer that a message shows."""


@dataclass(frozen=True)
class Completion:
    """A completion with its prompt.

    Attributes:
        messages: conversation before the answer, `{"role", "content"}` each.
        answer: the generated text.
        tokens: token ids of the answer.
        row: record of the data set.
        expected: expected answer in the data set; None if there is none.
    """

    messages: Sequence[Mapping[str, object]]
    answer: str
    tokens: Sequence[int] = ()
    row: Mapping[str, object] = field(default_factory=dict)
    expected: str | None = None

    @property
    def prompt(self) -> str:
        """Content of the last message."""
        asked = [one["content"] for one in self.messages if one["role"] == "user"]
        return str(asked[-1]) if asked else ""

    def arguments(self) -> dict[str, object]:
        """All arguments that a reward function may take, by name."""
        ours = {
            "prompt": self.prompt,
            "answer": self.answer,
            "expected": self.expected,
            "messages": [dict(one) for one in self.messages],
            "tokens": len(self.tokens),
            "row": dict(self.row),
        }
        return {name: value for name, value in self.row.items() if name not in COMPLETION_PARAMETERS} | ours


class RewardError(UserError):
    """A reward function raised an error or returned no number. Both sentences are for the user.

    Attributes:
        name: name of the function.
        message: which function, on which prompt, and what happened.
        what_to_do: how to fix it.
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True)
class Reward:
    """A named reward function.

    Attributes:
        name: name in the config.
        function: the function.
        file: source file as named in messages; empty for a built-in reward.
        path: file name in Python's tracebacks.
        expects: whether it needs the expected answer of the data set.
    """

    name: str
    function: RewardFunction
    file: str = ""
    path: str = ""
    expects: bool = False

    @property
    def signature(self) -> Signature:
        """The function's parameters."""
        return Signature.of(self.function, self.name)

    def score(self, answers: Sequence[Completion], told: Mapping[str, object] | None = None) -> list[float | None]:
        """Compute the rewards of completions.

        Args:
            answers: the completions.
            told: further arguments for batched functions: `trainer_state` and the like.

        Returns:
            One number per completion; None if the function does not apply.

        Raises:
            RewardError: the function raised an error, or returned NaN, text, or a list of the wrong length.
        """
        signature = self.signature
        if not signature.batched:
            return [self._number(self._call([one], signature.select(one.arguments())), one) for one in answers]
        columns = dict.fromkeys(name for one in answers for name in one.row)
        offered: dict[str, object] = {name: [one.row.get(name) for one in answers] for name in columns}
        offered |= {
            "prompts": [[dict(message) for message in one.messages] for one in answers],
            "completions": [[{"role": "assistant", "content": one.answer}] for one in answers],
            "completion_ids": [list(one.tokens) for one in answers],
            **(told or {}),
        }
        found = self._call(answers, signature.select(offered))
        found = found.tolist() if hasattr(found, "tolist") else found
        if not isinstance(found, list | tuple) or len(found) != len(answers):
            what = f"{len(found)} values" if isinstance(found, list | tuple) else f"a {type(found).__name__}"
            raise self._error(
                answers[0], (f"returned {what} for {len(answers)} completions. Expected one value for each")
            )
        return [self._number(value, one) for value, one in zip(found, answers, strict=True)]

    def _call(self, answers: Sequence[Completion], told: dict[str, object]) -> object:
        try:
            return self.function(**told)
        except Exception as error:
            said = str(error).strip().splitlines()
            what = f"{type(error).__name__}: {said[0]}" if said else type(error).__name__
            raise self._error(answers[0], f"raised {what.rstrip('.')}{self._line(error)}") from error

    def _number(self, value: object, answered: Completion) -> float | None:
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
        """The line in the function's file at which an error was raised."""
        if not self.path:
            return ""
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == self.path]
        return f" in line {lines[-1]} of {self.file}" if lines else ""

    def _error(self, answered: Completion, what: str) -> RewardError:
        asked, said = _shown(answered.prompt), _shown(answered.answer)
        where = f'On the prompt "{asked}" and the answer "{said}"'
        return RewardError(self.name, f"{where} the reward function {self.name} {what}.")


def as_float(value: float) -> float:
    """Convert a number to a float; numbers beyond the range of floats become infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def _shown(text: str) -> str:
    """A text in one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1].rstrip() + "…"
