"""Functions in files: those of a cell, stored with a run, and those of a user's Python file."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from types import ModuleType
from typing import TYPE_CHECKING

from llf_core.config.rule import ConfigError, Problem
from llf_core.untrusted import leads_to_file, read_text, real_path
from llf_core.user_functions.function_source import SourceError, source_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llf_core.user_functions.function_kind import FunctionKind, UserFunction


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


def functions_under_decorator(path: Path, kind: FunctionKind) -> list[UserFunction]:
    """Execute a Python file and return the functions that it registers, such as for `llf train --rewards FILE`.

    Raises:
        ValueError: the file cannot be read or run, or has no function under the decorator.
    """
    before = dict(kind.registered)
    run_file(path, kind)
    found = [function for called, function in kind.registered.items() if before.get(called) is not function]
    if not found:
        raise ValueError(
            f"{path} has no {kind.noun}. Expected a function under @{kind.decorator} (from "
            f"llf_core.{kind.decorator}s import {kind.decorator})."
        )
    return found


def run_file(path: Path, kind: FunctionKind) -> ModuleType:
    """Execute a Python file of the user in this process, which registers its functions; it can import from its folder.

    Its module stays in `sys.modules`, also after an error, under a name that hides no other one.

    Raises:
        ValueError: the file is missing, is not named like a Python file, or raises an error.
    """
    # Not the file's own name, by which another process could import another module.
    name = f"llf_{kind.decorator}s_of_{path.stem}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not leads_to_file(path):
        raise ValueError(f"{path} cannot be read. Expected a Python file, such as {kind.decorator}s.py.")
    module = sys.modules[name] = module_from_spec(spec)
    folder = str(real_path(path).parent)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
        raise ValueError(f"{path} cannot be run: {cause}.") from error
    finally:
        with suppress(ValueError):  # the file may have removed it
            sys.path.remove(folder)
    return module
