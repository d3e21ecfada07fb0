"""Loads a run's reward functions in the trainer process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.rewards.built_in import BUILT_IN
from llf_core.rewards.call_reward import Reward, RewardError
from llf_core.user_functions.function_files import StoredFunctionError, load_stored_function

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path


def load_rewards(names: Iterable[str], folder: Path, options: Mapping[str, object]) -> list[Reward]:
    """Load reward functions by name in the trainer process. The files in `folder`, the run's `code/`, are executed.

    Args:
        options: config values for built-in rewards: `reward_pattern`, `max_completion_length`.

    Raises:
        RewardError: a function does not exist, its file cannot be executed, or its parameters do not fit.
    """
    found = []
    for name in names:
        if name in BUILT_IN:
            one = BUILT_IN[name]
            found.append(Reward(name, one.make(options), expects=one.expects))
            continue
        path = folder / f"{name}.py"
        try:
            function = load_stored_function(path)
        except StoredFunctionError as error:
            raise RewardError(name, _sentence(name, path, error)) from error
        reward = Reward(name, function, f"code/{path.name}", str(path))
        try:
            reward.signature  # noqa: B018 - reported before anything is trained
        except TypeError as error:
            raise RewardError(name, f"{error} Fix it in {path}.") from error
        found.append(reward)
    return found


def _sentence(name: str, path: Path, error: StoredFunctionError) -> str:
    if error.missing:
        return (
            f"Unknown reward function {name}: the run has no {path.name} in {path.parent}. Start it from the "
            "notebook that defines it, with llf.train(config, rewards=[…])."
        )
    return (
        f"{error}. Fix it there, then resume with trust=True, in a terminal --trust; or give it to "
        "run.resume(rewards=[…])."
    )
