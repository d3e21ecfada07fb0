"""`@llf.reward`: registers a Python function as a reward function."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, TypeVar, overload

from llf_core.rewards.built_in import BUILT_IN
from llf_core.rewards.signature import Signature

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.rewards.signature import RewardFunction

Function = TypeVar("Function", bound="RewardFunction")

_registry: dict[str, RewardFunction] = {}
"""The latest function of each name; running a cell again replaces its functions."""


@overload
def reward(function: Function) -> Function: ...
@overload
def reward(*, name: str | None = None) -> Callable[[Function], Function]: ...
def reward(function: RewardFunction | None = None, *, name: str | None = None) -> object:
    """Register a function from a cell as a reward function that runs find by its name.

    It scores one completion: higher is better, None means that it does not apply. Its arguments depend on its parameter
    names:

    - `prompt`: the question, a string; `messages`: the whole conversation before the answer.
    - `answer`: the generated text; `tokens`: its number of tokens.
    - `expected`: the expected answer in the data set (column `answer`, `solution` or similar), or None.
    - any other name: the column of that name; `**row` takes all columns. `row` is the record as a dict, including
      columns whose names are listed above.

    A function with a parameter `completions` has TRL's interface: it takes lists (`prompts` and `completions` as
    messages, `completion_ids`, the columns) and returns a list.

    The function runs in the trainer process: its source is stored in the run folder with the notebook functions,
    constants and imports that it uses. Running the cell again replaces the registered function.

    Args:
        function: the decorated function; None where the decorator is called with options.
        name: name to register, a Python identifier. Default: the function's name.

    Returns:
        The unchanged function.

    Raises:
        TypeError: it is not a function, has no parameter for the answer, or is a coroutine or a generator.
        ValueError: the name belongs to a built-in reward or is no identifier, or the signature cannot be inspected.

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
            raise ValueError(f"A reward function cannot be named {called!r}. Expected a Python identifier.")
        Signature.of(function, called)
        if called in BUILT_IN:
            raise ValueError(f"{called} is a built-in reward. Use another name: @llf.reward(name='my_{called}').")
        _registry[called] = function
        return function

    return record if function is None else record(function)


def name_of(function: object) -> str:
    """Name under which a function is registered, else its own name: the config refers to a function by it.

    Args:
        function: the object that was given as a reward function.

    Raises:
        TypeError: it is not a function.
        ValueError: its name is no identifier, as that of a lambda.
    """
    if not callable(function) or not inspect.isfunction(inspect.unwrap(function)):
        raise TypeError(f"The reward function is a {type(function).__name__}. Expected a function: def f(answer): …")
    for called, known in _registry.items():
        if known is function:
            return called
    called = str(getattr(function, "__name__", ""))
    if not called.isidentifier():
        raise ValueError(f"The reward function is called {called}. Expected a name: def f(answer): …")
    return called


def registered(name: str) -> RewardFunction | None:
    """Look up the latest function registered under a name, for a config that names it; None if there is none."""
    return _registry.get(name)


def registered_functions() -> dict[str, RewardFunction]:
    """Copy the registry, all registered functions by name: a file of rewards may change it while it runs."""
    return dict(_registry)
