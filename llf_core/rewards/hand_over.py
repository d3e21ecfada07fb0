"""From the functions of a cell to files of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.config.problem import ConfigError, Fix, Problem
from llf_core.rewards.built_in import BUILT_IN
from llf_core.rewards.record import name_of, names, recorded
from llf_core.rewards.signature import Signature
from llf_core.rewards.source import SourceError, source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

KEY = "reward_functions"
FILE = "rewards.py"
"""In a run's `code/`."""


def chosen(rewards: Iterable[Any]) -> dict[str, Callable[..., Any] | None]:
    """Reward functions by name.

    Args:
        rewards: functions, or names of built-in or recorded ones.

    Returns:
        Name to function; None of what is given by name.

    Raises:
        TypeError: one is no function, or takes no answer.
        ValueError: two are called the same.
    """
    found: dict[str, Callable[..., Any] | None] = {}
    for one in [rewards] if isinstance(rewards, str) or callable(rewards) else rewards:
        name = one if isinstance(one, str) else name_of(one)
        if name in found:
            raise ValueError(f"Two reward functions are called {name}. Expected different names: @llf.reward(name=…).")
        if not isinstance(one, str):
            Signature.of(one, name)
            if name in BUILT_IN:
                raise ValueError(f"{name} is a built-in reward. Call yours otherwise: @llf.reward(name='my_{name}').")
        found[name] = None if isinstance(one, str) else one
    return found


def code_of(wanted: Iterable[str], given: Mapping[str, Callable[..., Any] | None] | None = None) -> str | None:
    """The source of all functions that a config names and LLF does not bring.

    Args:
        wanted: `reward_functions` of the config.
        given: functions that were handed over; others are looked up among the recorded ones.

    Returns:
        A module; None where all are built in.

    Raises:
        ConfigError: there is no function of a name, or its source cannot be handed over.
    """
    functions: dict[str, Callable[..., Any]] = {}
    for name in wanted:
        if name in BUILT_IN:
            continue
        function = (given or {}).get(name) or recorded(name)
        if function is None:
            raise ConfigError((_unknown(name),))
        functions[name] = function
    if not functions:
        return None
    try:
        return source_of(functions)
    except SourceError as error:
        raise ConfigError((Problem("invalid", KEY, ",".join(functions), str(error)),)) from error


def write_code(folder: Path, text: str | None) -> None:
    """Writes the module into a run's `code/`."""
    if text is not None:
        folder.mkdir(exist_ok=True)
        (folder / FILE).write_text(text, encoding="utf-8")


def _unknown(name: str) -> Problem:
    known = [*BUILT_IN, *names()]
    return Problem(
        "invalid",
        KEY,
        name,
        f"There is no reward function {name!r}. Expected one of {', '.join(known)}, or a function written in a cell "
        "under @llf.reward, or given as llf.train(config, rewards=[f]).",
        tuple(Fix(f"Use {one}", {KEY: one}) for one in BUILT_IN),
    )
