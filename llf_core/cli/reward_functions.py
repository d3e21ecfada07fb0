from __future__ import annotations

import json
from typing import TYPE_CHECKING

from llf_core.cli.checked_config import load_config
from llf_core.cli.errors import in_a_sentence
from llf_core.cli.terminal import err

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from llf_core.config import RunConfig
    from llf_core.rewards.signature import RewardFunction


def functions_of_file(path: Path | None) -> dict[str, RewardFunction]:
    """Load the reward functions in the file of `--rewards`, by the names that a config uses. The file is executed."""
    if path is None:
        return {}
    from llf_core.rewards import REWARDS
    from llf_core.user_functions.function_files import functions_under_decorator

    with in_a_sentence():
        found = REWARDS.by_name(functions_under_decorator(path, REWARDS))
        return {name: one for name, one in found.items() if one is not None}


def load_with_rewards(
    source: str, overrides: list[str] | None, given: Mapping[str, RewardFunction]
) -> tuple[RunConfig, list[RewardFunction | str] | None]:
    """Load the config of a command that has `--rewards`; one that names no reward functions gets those of the file.

    Args:
        given: functions of the file by name; empty without `--rewards`.

    Returns:
        The config; and its reward functions, of which those of the file are functions and the others names. None
        without `--rewards`.
    """
    from llf_core.config.read_config import read
    from llf_core.rewards import REWARDS

    if not given:
        return load_config(source, overrides), None
    named = read(source, overrides or ()).values.get(REWARDS.key)
    loaded = load_config(source, [*(overrides or ()), *([] if named else [f"{REWARDS.key}={json.dumps([*given])}"])])
    names = loaded.get(REWARDS.key) or ()
    say_unused("The config", given, names)
    return loaded, [given.get(one, one) for one in names]


def say_unused(who: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Print which of the given reward functions are not known to `who`, the subject of the sentence."""
    used = set(known)
    others = ", ".join(name for name in given if name not in used)
    if others:
        err.print(f"{who} has no reward function {others}: ignored.", highlight=False)
