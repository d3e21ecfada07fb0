"""Stores functions of a cell as files, and loads them from there."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from llf_core.config.problem import ConfigError, Problem
from llf_core.untrusted import leads_to_file, read_text
from llf_core.user_functions.function_source import SourceError, source_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llf_core.user_functions.function_kind import FunctionKind
    from llf_core.user_functions.signature import UserFunction


def function_sources(functions: Mapping[str, UserFunction], kind: FunctionKind) -> dict[str, str]:
    """Source of each function with its dependencies, with failures as problems of the config.

    Raises:
        ConfigError: the source of one cannot be extracted.
    """
    found = {}
    for name, function in functions.items():
        try:
            found[name] = source_of(function, kind.noun, name)
        except SourceError as error:
            raise ConfigError((Problem("invalid", kind.key, name, str(error)),)) from error
    return found


def write_code(folder: Path, code: Mapping[str, str]) -> None:
    """Write modules to a run's `code/`, one file `NAME.py` each."""
    for name, text in code.items():
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(text, encoding="utf-8")


def joined(rewards: Mapping[str, str], metrics: Mapping[str, str]) -> dict[str, str]:
    """Sources of a run's reward functions and metrics by name; one function may be both.

    Raises:
        ConfigError: a reward function and a metric with the same name differ.
    """
    for name, text in metrics.items():
        if rewards.get(name, text) != text:
            message = f"A reward function and a metric are named {name}, and differ. Expected different names."
            raise ConfigError((Problem("invalid", "metrics", name, message),))
    return {**metrics, **rewards}


class StoredFunctionError(Exception):
    """A stored function cannot be loaded. The message says why, without its final full stop."""

    def __init__(self, message: str, *, missing: bool = False) -> None:
        super().__init__(message)
        self.missing = missing


def load_stored_function(path: Path) -> UserFunction:
    """Execute a file `code/NAME.py` and return its function `NAME`.

    It is not imported: Python could use stale bytecode of a source that was corrected within the same second.

    Raises:
        StoredFunctionError: the file is missing, cannot be executed, or defines no such function.
    """
    if not leads_to_file(path):
        raise StoredFunctionError(f"there is no {path.name} in {path.parent}", missing=True)
    module = ModuleType(f"llf_function_{path.stem}")
    try:
        exec(compile(read_text(path, root=path.parent.parent), str(path), "exec"), vars(module))  # noqa: S102 - the user's own
    except (Exception, SystemExit) as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise StoredFunctionError(f"{path} cannot be run: {cause.rstrip('.')}") from error
    function = getattr(module, path.stem, None)
    if not callable(function):
        raise StoredFunctionError(f"{path} defines no function {path.stem}")
    return function  # type: ignore[no-any-return]  # it is callable
