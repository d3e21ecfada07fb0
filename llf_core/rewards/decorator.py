"""`@llf.reward`: a Python function that says how good an answer is."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, TypeVar, overload

from llf_core.rewards.built_in import BUILT_IN
from llf_core.rewards.signature import Signature

if TYPE_CHECKING:
    from collections.abc import Callable

Function = TypeVar("Function", bound="Callable[..., Any]")

_recorded: dict[str, Callable[..., Any]] = {}
"""The last function of each name: a cell that is run again replaces what it defined before."""


@overload
def reward(function: Function) -> Function: ...
@overload
def reward(*, name: str | None = None) -> Callable[[Function], Function]: ...
def reward(function: Any = None, *, name: str | None = None) -> Any:
    """Makes a function of a cell a reward function, which a run finds by its name.

    It takes one answer and gives a number; more is better, None says that it does not apply to this answer. What it
    is told depends on the names of its parameters:

    - `prompt`: the question, a text; `messages`: the whole conversation before the answer.
    - `answer`: what the model said, a text; `tokens`: how many tokens that is.
    - `expected`: the answer that the data set gives (its column `answer`, `solution` or the like), or None.
    - any other name: the data set's column of that name; `**row` takes all of them. `row` is the record as a dict,
      also of columns that are called as one of the above.

    A function with a parameter `completions` is one of TRL's: it gets lists (`prompts` and `completions` as messages,
    `completion_ids`, the columns) and returns a list.

    The function runs in the trainer, another process: its source goes into the run folder, with the functions,
    constants and imports of the notebook that it uses.

    Args:
        function: what is decorated.
        name: in place of the function's own name.

    Returns:
        The function as it is.

    Raises:
        TypeError: it is no function, or takes no answer.
        ValueError: the name belongs to a built-in reward, or is no name.

    Example:
        >>> @reward
        ... def short(answer: str) -> float:
        ...     return -len(answer) / 100
        >>> short("abcde")
        -0.05
    """

    def record(function: Function) -> Function:
        called = name or name_of(function)
        if not called.isidentifier():
            raise ValueError(f"A reward function can't be called {called!r}. Expected a name as Python has them.")
        Signature.of(function, called)
        if called in BUILT_IN:
            raise ValueError(f"{called} is a built-in reward. Call yours otherwise: @llf.reward(name='my_{called}').")
        _recorded[called] = function
        return function

    return record if function is None else record(function)


def name_of(function: Any) -> str:
    """What a function is called after.

    Raises:
        TypeError: it is no function.
        ValueError: it has no name, as a lambda.
    """
    if not inspect.isfunction(inspect.unwrap(function)):
        raise TypeError(f"The reward function is a {type(function).__name__}. Expected a function: def f(answer): …")
    for called, known in _recorded.items():
        if known is function:
            return called
    called = str(function.__name__)
    if not called.isidentifier():
        raise ValueError(f"The reward function is called {called}. Expected a name: def f(answer): …")
    return called


def recorded(name: str) -> Callable[..., Any] | None:
    """The function of a name, as it was defined last; None where there is none."""
    return _recorded.get(name)


def functions() -> dict[str, Callable[..., Any]]:
    """Those that were recorded, by their names."""
    return dict(_recorded)
