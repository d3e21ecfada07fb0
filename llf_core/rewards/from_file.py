"""Reward functions of a Python file, for those who train from a terminal."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING, Any

from llf_core.rewards import decorator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def from_file(path: Path) -> list[Callable[..., Any]]:
    """Runs a file, and takes what it puts under `@reward`.

    Args:
        path: a file of Python.

    Returns:
        The functions, which are recorded now, in their order.

    Raises:
        ValueError: the file is not there or cannot be run, or no function of it is under `@reward`.
    """
    before = dict(decorator.functions())
    # Not called after the file: the trainer would look for a module of that name, and another may have it.
    name = f"llf_rewards_of_{path.stem}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise ValueError(f"{path} cannot be read. Expected a file of Python, as rewards.py.")
    module = sys.modules[name] = module_from_spec(spec)
    beside = str(path.resolve().parent)
    sys.path.insert(0, beside)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
        raise ValueError(f"{path} cannot be run: {said}.") from error
    finally:
        sys.path.remove(beside)
    found = [function for called, function in decorator.functions().items() if before.get(called) is not function]
    if not found:
        raise ValueError(
            f"{path} has no reward function. Expected a function under @reward (from llf_core.rewards import reward)."
        )
    return found
