"""Finds the source of a user's metrics, for the process that computes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.did_you_mean import did_you_mean
from llf_core.config.metric_names import declarations_of, function_name, is_in_file, known_names
from llf_core.config.paths import expanded
from llf_core.config.problem import ConfigError, Problem
from llf_core.metrics.decorator import METRICS, TRAITS
from llf_core.user_functions.function_files import function_sources, run_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llf_core.user_functions.function_kind import UserFunction


def metric_sources(names: Iterable[str], given: Mapping[str, UserFunction | None] | None = None) -> dict[str, str]:
    """Extract the source of all metrics that are functions, for a `code/` that `load_metrics` reads.

    A file that a name points to (`file.py:f`) is executed in this process.

    Args:
        names: names in `metrics`; relative paths start from the working directory.
        given: functions passed by the caller, by name; others are looked up in the registry.

    Raises:
        ConfigError: a metric is unknown or cannot be stored, its file cannot be run, or two functions have the same
            name.
    """
    functions: dict[str, UserFunction] = {}
    for name in dict.fromkeys(names):
        if declarations_of(name):
            continue
        called = function_name(name)
        function = (given or {}).get(name) or _in_file(name) or METRICS.registered.get(name)
        if function is None:
            raise ConfigError((_problem(name, unknown_metric(name)),))
        if functions.get(called, function) is not function:
            raise ConfigError((_problem(name, f"Two metrics are named {called}. Expected different names."),))
        functions[called] = function
    sources = function_sources(functions, METRICS)
    return {name: text + _traits(name, functions[name]) for name, text in sources.items()}


def unknown_metric(name: str) -> str:
    """Error message for an unknown metric name."""
    known = [*known_names(), *METRICS.registered]
    return (
        f"Unknown metric {name!r}. Expected one of {', '.join(known)}, a function written in a cell under @llf.metric, "
        f"or one in a file: FILE.py:FUNCTION.{did_you_mean(name, known)}"
    )


def _in_file(name: str) -> UserFunction | None:
    """The function that `file.py:f` names; None if the name has another form."""
    if not is_in_file(name):
        return None
    path = expanded(name.rpartition(":")[0])
    try:
        module = run_file(path, METRICS)
        function = getattr(module, function_name(name), None)
        if function is None or isinstance(function, str):  # a text would count as a name of a function
            raise ConfigError((_problem(name, f"{path} has no function {function_name(name)}."),))
        METRICS.by_name([function])
    except (TypeError, ValueError) as error:
        raise ConfigError((_problem(name, str(error)),)) from error
    return function  # type: ignore[no-any-return]  # `by_name` has checked it


def _traits(name: str, function: UserFunction) -> str:
    """Lines that set the attributes of the decorator on a copied function."""
    own = {trait: getattr(function, trait) for trait in TRAITS if hasattr(function, trait)}
    lines = [f"{name}.{trait} = {value!r}\n" for trait, value in own.items() if isinstance(value, str | bool)]
    return "".join(["\n\n", *lines]) if lines else ""


def _problem(name: str, message: str) -> Problem:
    return Problem("invalid", METRICS.key, name, message)
