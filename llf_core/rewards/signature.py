"""Parameters of a reward function."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

RewardFunction: TypeAlias = "Callable[..., object]"
"""Scores a response; its parameter names say what it is given."""
COMPLETION_PARAMETERS = ("prompt", "answer", "expected", "messages", "tokens", "row")
"""Parameter names with a fixed meaning; columns with these names are available in `row`."""
TRAINER_PARAMETERS = ("trainer_state", "log_extra", "log_metric")
"""Parameters that TRL's trainers pass about themselves."""
BATCH_PARAMETERS = ("prompts", "completions", "completion_ids", *TRAINER_PARAMETERS)
"""Parameters that TRL passes for a batch."""
PLACES = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Signature:
    """Parameters of a reward function.

    Attributes:
        batched: whether it takes lists, like TRL's reward functions, or one completion at a time.
        names: names of its parameters.
        required: parameters without a default.
        rest: whether it accepts any further name (`**row`).
    """

    batched: bool
    names: tuple[str, ...]
    required: tuple[str, ...]
    rest: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the data set that it requires: parameters without a default that have no fixed meaning.

        A run can check them before training, when the function cannot be called yet.
        """
        known = BATCH_PARAMETERS if self.batched else COMPLETION_PARAMETERS
        return tuple(name for name in self.required if name not in known)

    def select(self, offered: dict[str, object]) -> dict[str, object]:
        """Select the arguments that the function accepts, since it declares only those that it needs.

        Args:
            offered: all arguments by name.

        Returns:
            The arguments of the call; all of them for a function with `**row`.
        """
        return offered if self.rest else {name: value for name, value in offered.items() if name in self.names}

    @classmethod
    def of(cls, function: RewardFunction, name: str) -> Signature:
        """Inspect a function's parameters and check that it can be called by name.

        A mistake is found when the function is registered, not hours later when it is first called.

        Args:
            function: a plain Python function.
            name: its name in messages.

        Raises:
            TypeError: it has no parameter for the answer, takes arguments by position only, or is a coroutine or a
                generator.
            ValueError: its signature cannot be inspected, as of some functions in C.
        """
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(f"The reward function {name} is a coroutine or a generator. Expected def, with return.")
        given = inspect.signature(function).parameters.values()
        names = tuple(one.name for one in given if one.kind in PLACES)
        required = tuple(one.name for one in given if one.kind in PLACES and one.default is one.empty)
        strange = [one.name for one in given if one.kind in {one.POSITIONAL_ONLY, one.VAR_POSITIONAL}]
        batched = "completions" in names
        if strange or not (batched or "answer" in names):
            takes = ", ".join(str(one) for one in given)
            raise TypeError(
                f"The reward function {name} takes ({takes}). Expected parameters by name, `answer` among them: "
                "def f(prompt, answer, **row) for one answer, or def f(prompts, completions, **columns) for lists."
            )
        return cls(batched, names, required, any(one.kind is one.VAR_KEYWORD for one in given))
