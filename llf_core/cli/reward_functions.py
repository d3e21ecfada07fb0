"""Reward functions from a file named in a command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.cli.errors import in_a_sentence
from llf_core.cli.terminal import err

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from llf_core.rewards.signature import RewardFunction


def functions_of_file(path: Path | None) -> dict[str, RewardFunction]:
    """Load the reward functions in a file of the option `--rewards`, by the names that a config uses; none without one.

    The file is executed, since only its decorators tell which of its functions are rewards.

    Raises:
        UserError: the file cannot be read or run, defines no reward function, or one that cannot be stored.
        TypeError: a reward function is not a function, or has no parameter for the answer.
    """
    if path is None:
        return {}
    from llf_core.rewards import REWARDS
    from llf_core.user_functions.function_file import functions_under_decorator

    with in_a_sentence():
        found = REWARDS.by_name(functions_under_decorator(path, REWARDS))
        return {name: one for name, one in found.items() if one is not None}


def names_in_config(source: str, overrides: list[str] | None) -> tuple[str, ...]:
    """Names of the reward functions in a config, which `--rewards` may define; empty if it names none.

    Args:
        source: path of the config.
        overrides: `key=value`; None for none.

    Raises:
        PluginError: two installed packages declare the same name or key.
        FileNotFoundError: the working directory was removed.
    """
    from llf_core.config import validate as check

    return check(source, overrides or ()).config.get("reward_functions") or ()


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
