"""Kinds of functions, such as those under `@llf.reward`: their parameters, registry, and what they may return."""

from __future__ import annotations

import inspect
import math
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


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


Decorator = TypeVar("Decorator")

DECORATORS: list[object] = []
"""Decorators that register functions; copied sources leave them out."""


@dataclass(eq=False)
class FunctionKind:
    """A kind of functions, and the registered ones of this process.

    Attributes:
        decorator: name of its decorator, such as `reward` for `@llf.reward`.
        registered: the latest function of each name; running a cell again replaces its functions.
    """

    decorator: str
    key: str
    parameters: Parameters
    is_built_in: Callable[[str], bool]
    registered: dict[str, UserFunction] = field(default_factory=dict)

    @property
    def noun(self) -> str:
        """Name of the kind in messages, such as `reward function`."""
        return self.parameters.noun

    def register(self, function: UserFunction, name: str | None = None) -> None:
        """Record a function under a name (default: its own), for configs that name it.

        Raises:
            ValueError: the name is not an identifier or is a built-in function's, or the signature cannot be inspected.
        """
        self._check_type(function)
        called = name or self.name_of(function)
        if not isinstance(called, str) or not called.isidentifier():
            raise ValueError(f"A {self.noun} cannot be named {called!r}. Expected a Python identifier.")
        self._check(function, called)
        self.registered[called] = function

    def name_of(self, function: object) -> str:
        """Name under which a function is registered, else its own name.

        Raises:
            ValueError: its name is not an identifier, such as a lambda's.
        """
        self._check_type(function)
        for called, known in self.registered.items():
            if known is function:
                return called
        called = str(getattr(function, "__name__", ""))
        if not called.isidentifier():
            raise ValueError(f"The {self.noun} is called {called}. Expected a name: def f(answer): …")
        return called

    def by_name(self, given: Iterable[UserFunction | str] | UserFunction) -> dict[str, UserFunction | None]:
        """Map names to functions, None for those given by name; `given` may also be a single one.

        Raises:
            ValueError: a name occurs twice, is missing or is a built-in function's, or a signature cannot be inspected.
        """
        found: dict[str, UserFunction | None] = {}
        for one in [given] if isinstance(given, str) or callable(given) else given:
            name = one if isinstance(one, str) else self.name_of(one)
            if name in found:
                raise ValueError(
                    f"Two {self.noun}s are named {name}. Expected different names: @llf.{self.decorator}(name=…)."
                )
            if not isinstance(one, str):
                self._check(one, name)
            found[name] = None if isinstance(one, str) else one
        return found

    def _check_type(self, function: object) -> None:
        bound = inspect.ismethod(function)  # one of a decorated function has its `__wrapped__`
        if bound or not callable(function) or not inspect.isfunction(inspect.unwrap(function)):
            raise TypeError(f"The {self.noun} is a {type(function).__name__}. Expected a function: def f(answer): …")

    def _check(self, function: UserFunction, name: str) -> None:
        Signature.of(function, name, self.parameters)
        if self.is_built_in(name):
            raise ValueError(
                f"{name} is a built-in {self.decorator}. Use another name: @llf.{self.decorator}(name='my_{name}')."
            )


def registers_functions(decorator: Decorator) -> Decorator:
    """Mark a decorator as one that registers functions, so that copied sources leave it out."""
    DECORATORS.append(decorator)
    return decorator


SHOWN = 60
"""Maximum length of a value in a message."""


def number_or_none(value: object) -> float | None:
    """Convert a returned score to a finite float or None, also from an array or tensor of one element (`[]`, `[1]`).

    Raises:
        ValueError: it is something else; the message continues the name of the function: `returned …`.
    """
    if value is None:
        return None
    if hasattr(value, "item"):  # a scalar of numpy or torch
        with suppress(ValueError, RuntimeError, TypeError):  # several values: reported below
            value = value.item()
    if not isinstance(value, int | float):
        raise ValueError(f"returned {shown(repr(value))}. Expected a number, or None")  # noqa: TRY004 - for a message
    number = as_float(value)
    if not math.isfinite(number):
        raise ValueError(f"returned {number}. Expected a finite number, or None")
    return number


def as_float(value: float) -> float:
    """Convert a number to a float; integers too large for one become infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def raised(error: BaseException, path: str = "", file: str = "") -> str:
    """Describe an exception, to continue a function's name: `raised ValueError: … in line 3 of code/f.py`.

    Of the message the first line is kept, without its final full stop. The line is the innermost one in the function's
    file, named `path` in tracebacks.
    """
    lines = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    places = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if path and frame.filename == path]
    where = f" in line {places[-1]} of {file}" if places else ""
    return f"raised {what.rstrip('.')}{where}"


def shown(text: str) -> str:
    """Put a text on one line of at most `SHOWN` characters."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else line[: SHOWN - 1].rstrip() + "…"
