"""`@llf.metric`: registers a Python function as a metric."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, overload

from llf_core.config.evaluation_keys import declarations_of
from llf_core.user_functions.function_kind import FunctionKind, Parameters, registers_functions

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.user_functions.function_kind import UserFunction

Function = TypeVar("Function", bound="UserFunction")

PARAMETERS = Parameters(
    "metric",
    ("prompt", "answer", "reference", "expected", "messages", "row"),
    (),
    "parameters by name, `answer` among them: def f(answer, reference, **row)",
)
METRICS = FunctionKind("metric", "metrics", PARAMETERS, lambda name: bool(declarations_of(name)))
TRAITS = ("unit", "higher_is_better")
"""Options that the decorator stores as attributes of the function."""


@overload
def metric(function: Function) -> Function: ...
@overload
def metric(
    *, name: str | None = None, unit: str | None = None, higher_is_better: bool | None = None
) -> Callable[[Function], Function]: ...
@registers_functions
def metric(
    function: UserFunction | None = None,
    *,
    name: str | None = None,
    unit: str | None = None,
    higher_is_better: bool | None = None,
) -> object:
    """Register a function from a cell as a metric that evaluations find by its name.

    It scores one answer with a number; None means that it does not apply. The value over all answers is the mean of the
    scores. Its arguments depend on its parameter names:

    - `answer`: the generated text.
    - `reference` (also called `expected`, as for reward functions): the expected answer. A function with such a
      parameter without a default is not called for examples that have none.
    - `prompt`: the question, a string; `messages`: the whole conversation before the answer.
    - any other name: the column of that name; `**row` takes all columns. `row` is the record as a dict.

    The function runs in another process: its source is stored with the notebook functions, constants and imports that
    it uses. Running the cell again replaces the registered function.

    Args:
        function: the decorated function; None where the decorator is called with options.
        unit: shown behind a value. `%` is for scores from 0 to 1, which are shown times 100. Default: none.

    Returns:
        The function, with `unit` and `higher_is_better` as attributes where they are given; called with options, the
        decorator.

    Example:
        >>> @metric(unit="words", higher_is_better=False)
        ... def length(answer: str) -> float:
        ...     return len(answer.split())
        >>> length("one two")
        2
    """

    def record(function: Function) -> Function:
        METRICS.register(function, name)
        for trait, value in zip(TRAITS, (unit, higher_is_better), strict=True):
            if value is not None:
                setattr(function, trait, value)
        return function

    return record if function is None else record(function)
