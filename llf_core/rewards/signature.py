"""What a reward function takes, read from the names of its parameters."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

OURS = ("prompt", "answer", "expected", "messages", "tokens", "row")
"""What one answer is told by; a column of the data set that is called so is found in `row`."""
OF_A_TRAINER = ("trainer_state", "log_extra", "log_metric")
"""What TRL's trainers tell of themselves."""
LISTED = ("prompts", "completions", "completion_ids", *OF_A_TRAINER)
"""What TRL tells of a batch."""
PLACES = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Signature:
    """What a reward function takes.

    Attributes:
        listed: it takes lists, as TRL's reward functions do; else one answer at a time.
        names: its parameters.
        needed: those that have no default.
        rest: it takes further ones too (`**row`).
    """

    listed: bool
    names: tuple[str, ...]
    needed: tuple[str, ...]
    rest: bool

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a data set that it cannot do without."""
        known = LISTED if self.listed else OURS
        return tuple(name for name in self.needed if name not in known)

    def choose(self, offered: dict[str, Any]) -> dict[str, Any]:
        """Of what can be told, what the function takes."""
        return offered if self.rest else {name: value for name, value in offered.items() if name in self.names}

    @classmethod
    def of(cls, function: Callable[..., Any], name: str) -> Signature:
        """Reads it.

        Args:
            function: a plain Python function.
            name: what the function is called in messages.

        Raises:
            TypeError: it does not take an answer by name, or is a coroutine.
        """
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(f"The reward function {name} is a coroutine or a generator. Expected def, with return.")
        given = inspect.signature(function).parameters.values()
        names = tuple(one.name for one in given if one.kind in PLACES)
        needed = tuple(one.name for one in given if one.kind in PLACES and one.default is one.empty)
        strange = [one.name for one in given if one.kind in {one.POSITIONAL_ONLY, one.VAR_POSITIONAL}]
        listed = "completions" in names
        if strange or not (listed or "answer" in names):
            takes = ", ".join(str(one) for one in given)
            raise TypeError(
                f"The reward function {name} takes ({takes}). Expected parameters by name, `answer` among them: "
                "def f(prompt, answer, **row) for one answer, or def f(prompts, completions, **columns) for lists."
            )
        return cls(listed, names, needed, any(one.kind is one.VAR_KEYWORD for one in given))
