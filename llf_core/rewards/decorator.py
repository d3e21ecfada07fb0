"""`@llf.reward`: registers a Python function as a reward function."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias, TypeVar, overload

from llf_core.rewards.built_in import BUILT_IN
from llf_core.user_functions.function_kind import FunctionKind, Parameters, registers_functions

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.user_functions.function_kind import UserFunction


RewardFunction: TypeAlias = "UserFunction"
"""Scores a response; called with arguments by parameter name."""
Function = TypeVar("Function", bound="RewardFunction")


@overload
def reward(function: Function) -> Function: ...


@overload
def reward(*, name: str | None = None) -> Callable[[Function], Function]: ...


@registers_functions
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
    messages, `completion_ids`, the columns; of `grpo` and `rloo` also `trainer_state`, `log_extra`, `log_metric`) and
    returns a list.

    The function runs in the trainer process: its source is stored in the run folder with the notebook functions,
    constants and imports that it uses. Running the cell again replaces the registered function.

    Args:
        function: the decorated function; None where the decorator is called with options.

    Returns:
        The unchanged function; called with options, the decorator.

    Example:
        >>> @reward
        ... def short(answer: str) -> float:
        ...     return -len(answer) / 100
        >>> short("abcde")
        -0.05
    """

    def record(function: Function) -> Function:
        REWARDS.register(function, name)
        return function

    return record if function is None else record(function)


COMPLETION_PARAMETERS = ("prompt", "answer", "expected", "messages", "tokens", "row")
"""Parameter names with a fixed meaning; columns with these names are available in `row`."""

TRAINER_PARAMETERS = ("trainer_state", "log_extra", "log_metric")
"""Parameters that TRL's trainers pass about themselves."""
BATCH_PARAMETERS = ("prompts", "completions", "completion_ids", *TRAINER_PARAMETERS)

PARAMETERS = Parameters(
    "reward function",
    COMPLETION_PARAMETERS,
    BATCH_PARAMETERS,
    "parameters by name, `answer` among them: def f(prompt, answer, **row) for one answer, or def f(prompts, "
    "completions, **columns) for lists",
)
REWARDS = FunctionKind("reward", "reward_functions", PARAMETERS, BUILT_IN.__contains__)
