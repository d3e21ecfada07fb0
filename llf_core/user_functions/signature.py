"""Parameters of a user's function."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable

UserFunction: TypeAlias = "Callable[..., object]"
"""Scores a response; its parameter names select what it is given."""
PLACES = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Parameters:
    """Parameters that functions of a kind may have.

    Attributes:
        noun: name of the kind in messages, such as `reward function`.
        single: names with a fixed meaning, `answer` among them; columns with these names are in `row`.
        batch: names for a function that is called with lists, `completions` among them; empty if the kind has none.
        expected: the accepted signatures, as the words after "Expected" in a message.
    """

    noun: str
    single: tuple[str, ...]
    batch: tuple[str, ...]
    expected: str


@dataclass(frozen=True)
class Signature:
    """Parameters of a function.

    Attributes:
        batched: whether it takes lists, like TRL's reward functions, or one completion at a time.
        required: parameters without a default.
        rest: whether it accepts any further name (`**row`).
        fixed: names with a fixed meaning, which are not columns.
    """

    batched: bool
    names: tuple[str, ...]
    required: tuple[str, ...]
    rest: bool
    fixed: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the data set that it requires."""
        return tuple(name for name in self.required if name not in self.fixed)

    def select(self, offered: dict[str, object]) -> dict[str, object]:
        """Select the arguments that the function accepts; `offered` itself for a function with `**row`."""
        return offered if self.rest else {name: value for name, value in offered.items() if name in self.names}

    @classmethod
    def of(cls, function: UserFunction, name: str, parameters: Parameters) -> Signature:
        """Inspect a function's parameters and check that it can be called by name.

        Raises:
            TypeError: it has no parameter for the answer, takes positional-only arguments, or is a coroutine or
                generator.
        """
        noun = parameters.noun
        kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
        if any(is_kind(function) for is_kind in kinds):
            raise TypeError(f"The {noun} {name} is a coroutine or a generator. Expected def, with return.")
        given = inspect.signature(function).parameters.values()
        names = tuple(one.name for one in given if one.kind in PLACES)
        required = tuple(one.name for one in given if one.kind in PLACES and one.default is one.empty)
        strange = [one.name for one in given if one.kind in {one.POSITIONAL_ONLY, one.VAR_POSITIONAL}]
        batched = "completions" in names and bool(parameters.batch)
        if strange or not (batched or "answer" in names):
            takes = ", ".join(str(one) for one in given)
            raise TypeError(f"The {noun} {name} takes ({takes}). Expected {parameters.expected}.")
        fixed = parameters.batch if batched else parameters.single
        return cls(batched, names, required, any(one.kind is one.VAR_KEYWORD for one in given), fixed)
