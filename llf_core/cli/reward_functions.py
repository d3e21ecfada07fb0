"""Reward functions from a file named in a command."""

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
    """Load the reward functions in a file of the option `--rewards`, by the names that a config uses; none without one.

    The file is executed, since only its decorators tell which of its functions are rewards.
    """
    if path is None:
        return {}
    from llf_core.rewards import REWARDS
    from llf_core.user_functions.function_file import functions_under_decorator

    with in_a_sentence():
        found = REWARDS.by_name(functions_under_decorator(path, REWARDS))
        return {name: one for name, one in found.items() if one is not None}


def load_with_rewards(
    source: str, overrides: list[str] | None, given: Mapping[str, RewardFunction]
) -> tuple[RunConfig, list[RewardFunction | str] | None]:
    """Load the config of a command that has `--rewards`; one that names no reward functions gets those of the file.

    Functions of the file that the config does not name are printed, since they have no effect.

    Args:
        overrides: `key=value`; None for none.
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
    """Print which of the given reward functions are not used, since a misspelled name would have no effect otherwise.

    Args:
        who: subject of the sentence.
        given: names of the given functions.
        known: names that are used.
    """
    used = set(known)
    others = ", ".join(name for name in given if name not in used)
    if others:
        err.print(f"{who} has no reward function {others}: ignored.", highlight=False)
