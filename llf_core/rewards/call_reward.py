"""Calls reward functions, validates their results and adds them up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llf_core.rewards.decorator import COMPLETION_PARAMETERS, PARAMETERS
from llf_core.user_error import UserError
from llf_core.user_functions.function_kind import Signature, number_or_none, raised, shown

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.rewards.decorator import RewardFunction

LARGEST = (2 - 2**-23) * 2.0**127
"""Largest number of float32, in which trainers compute with rewards."""


@dataclass(frozen=True)
class Completion:
    """A completion with its prompt.

    Attributes:
        messages: conversation before the answer, `{"role", "content"}` each.
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
        """Content of the last user message; empty if there is none."""
        questions = [one["content"] for one in self.messages if one["role"] == "user"]
        return str(questions[-1]) if questions else ""

    def arguments(self) -> dict[str, object]:
        """All arguments that a reward function may take, by parameter name; copies, so that it cannot change the data.

        A column does not replace an argument of the same name; it is available in `row`.
        """
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
    """A reward function raised an error or did not return a number; the trainer sets `what_to_do`."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True)
class Reward:
    """A named reward function.

    Attributes:
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
        """Parameters of the function."""
        return Signature.of(self.function, self.name, PARAMETERS)

    def score(
        self, completions: Sequence[Completion], trainer_values: Mapping[str, object] | None = None
    ) -> list[float | None]:
        """Compute the rewards of completions and check them: None where the function does not apply.

        Args:
            completions: one call each, or one call for all with TRL's interface.
            trainer_values: further arguments for functions with TRL's interface, by name, such as `trainer_state`.

        Raises:
            RewardError: the function raised an error, or returned anything but a finite float32 number or None; with
                TRL's interface, anything but a list with one of these for each completion.
        """
        signature = self.signature
        if not signature.batched:
            return [self._number(self._call([one], signature.select(one.arguments())), one) for one in completions]
        if not completions:
            return []
        columns = dict.fromkeys(name for one in completions for name in one.row)
        offered: dict[str, object] = {name: [one.row.get(name) for one in completions] for name in columns}
        offered |= {
            "prompts": [[dict(message) for message in one.messages] for one in completions],
            "completions": [[{"role": "assistant", "content": one.answer}] for one in completions],
            "completion_ids": [list(one.tokens) for one in completions],
            **(trainer_values or {}),
        }
        found = self._call(completions, signature.select(offered))
        found = found.tolist() if hasattr(found, "tolist") else found
        if not isinstance(found, list | tuple) or len(found) != len(completions):
            what = f"{len(found)} values" if isinstance(found, list | tuple) else f"a {type(found).__name__}"
            raise self._error(
                completions[0], (f"returned {what} for {len(completions)} completions. Expected one value for each")
            )
        return [self._number(value, one) for value, one in zip(found, completions, strict=True)]

    def _call(self, completions: Sequence[Completion], arguments: dict[str, object]) -> object:
        try:
            return self.function(**arguments)
        except Exception as error:
            raise self._error(completions[0], raised(error, self.path, self.file)) from error

    def _number(self, value: object, completion: Completion) -> float | None:
        try:
            number = number_or_none(value)
        except ValueError as error:
            raise self._error(completion, str(error)) from None
        if number is not None and abs(number) > LARGEST:
            raise self._error(completion, f"returned {number:g}. Expected at most {LARGEST:g}, the largest float32")
        return number

    def _error(self, completion: Completion, what: str) -> RewardError:
        prompt, answer = shown(completion.prompt), shown(completion.answer)
        where = f'On the prompt "{prompt}" and the answer "{answer}"'
        return RewardError(self.name, f"{where} the reward function {self.name} {what}.")


@dataclass
class ScoredCompletion:
    """A completion and its rewards by function; None where one does not apply."""

    completion: Completion
    rewards: dict[str, float | None] = field(default_factory=dict)


class WeightedSum:
    """Reward functions with their weights."""

    def __init__(self, rewards: Sequence[Reward], weights: Sequence[float]) -> None:
        self.rewards = tuple(rewards)
        self.names = tuple(reward.name for reward in rewards)
        self._weights = dict(zip(self.names, weights, strict=True))

    def total(self, completion: ScoredCompletion) -> float | None:
        """Weighted sum of a completion's rewards over the functions that apply; None if none does."""
        scores = {name: value for name, value in completion.rewards.items() if value is not None}
        return float(sum(self._weights[name] * value for name, value in scores.items())) if scores else None


def unscored_message(unscored: int, total: int) -> str:
    """Warning about completions to which no reward function applies."""
    return f"All reward functions returned None for {unscored} of {total} completions. These are not trained on."


def fix_message(name: str) -> str:
    """Sentence on how to continue after a reward function failed, appended to its error."""
    return f"Fix the function, then resume with run.resume(rewards=[{name}])."
