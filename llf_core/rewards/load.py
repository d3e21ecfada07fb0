"""Stores reward functions of a cell as files of a run, and loads them in the trainer process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.field_specs import field
from llf_core.config.option import split_names
from llf_core.config.rule import ConfigError, Fix, Problem
from llf_core.rewards.built_in import BUILT_IN
from llf_core.rewards.call_reward import Reward, RewardError
from llf_core.rewards.decorator import REWARDS
from llf_core.runs.config_file import read_config
from llf_core.runs.files import replace_file
from llf_core.untrusted import read_text
from llf_core.user_functions.function_source import StoredFunctionError, function_sources, load_stored_function

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from llf_core.config import RunConfig
    from llf_core.rewards.decorator import RewardFunction
    from llf_core.runs import RunFolder


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


KEY = REWARDS.key


def reward_sources(config: RunConfig, given: Mapping[str, RewardFunction | None] | None = None) -> dict[str, str]:
    """Extract the source of all functions that a config names and that are not built in, for the run's `code/`.

    Args:
        given: functions passed by the caller; others are looked up in the registry.

    Raises:
        ConfigError: a function is unknown, its source cannot be extracted, or functions are given to a stage that
            uses no rewards.
    """
    spec, stage = field(KEY), config.get("stage")
    if spec is None or stage not in spec.stages:
        if given:
            stages = ", ".join(spec.stages if spec else ())
            message = (
                f"Reward functions were given, and stage {stage} does not use them. Expected one of the stages "
                f"{stages}."
            )
            raise ConfigError((Problem("invalid", "stage", stage, message),))
        return {}
    functions: dict[str, RewardFunction] = {}
    for name in config.get(KEY) or ():
        if name in BUILT_IN:
            continue
        function = (given or {}).get(name) or REWARDS.registered.get(name)
        if function is None:
            raise ConfigError((_unknown(name),))
        functions[name] = function
    return function_sources(functions, REWARDS)


def replace_code(folder: RunFolder, rewards: Iterable[RewardFunction | str], attempt: int) -> list[str]:
    """Replace reward functions of an ended run, so that it can resume after one of them has failed.

    The attempt's sources are kept in `code/attempt-N/`.

    Args:
        rewards: the new functions; names of functions, without new code, change nothing.

    Raises:
        ConfigError: the run has no reward function of a name, or the source of one cannot be extracted.
    """
    functions = {name: function for name, function in REWARDS.by_name(rewards).items() if function is not None}
    known = reward_names(folder)
    for name in functions:
        if name not in known:
            message = (
                f"The run has no reward function {name}. Expected one of {', '.join(known)}; for another one start "
                "a new run."
            )
            raise ConfigError((Problem("invalid", KEY, name, message),))
    changed = []
    for name, text in function_sources(functions, REWARDS).items():
        path = folder.code / f"{name}.py"
        kept = folder.code / f"attempt-{attempt}" / path.name
        old = read_text(path, root=folder.path) if path.is_file() else None
        if old == text:
            continue
        if old is not None and not kept.exists():  # else no attempt has used the old one
            kept.parent.mkdir(exist_ok=True)
            replace_file(kept, old.encode())
        folder.code.mkdir(exist_ok=True)
        replace_file(path, text.encode())
        changed.append(name)
    return changed


def reward_names(folder: RunFolder) -> tuple[str, ...]:
    """Names of a run's reward functions, from its `config.yaml`, valid or not; empty if unreadable."""
    names = split_names(read_config(folder.config).get(KEY))
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, tuple) else ()


def _unknown(name: str) -> Problem:
    known = [*BUILT_IN, *REWARDS.registered]
    return Problem(
        "invalid",
        KEY,
        name,
        f"Unknown reward function {name!r}. Expected one of {', '.join(known)}, or a function written in a cell "
        "under @llf.reward, or given as llf.train(config, rewards=[f]); in a terminal: llf train --rewards FILE.",
        tuple(Fix(f"Use {one}", {KEY: one}) for one in BUILT_IN),
    )
