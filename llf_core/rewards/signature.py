"""Parameters of a reward function."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from llf_core.user_functions.function_kind import Parameters

if TYPE_CHECKING:
    from llf_core.user_functions.function_kind import UserFunction

RewardFunction: TypeAlias = "UserFunction"
"""Scores a response; called with arguments by parameter name."""
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
