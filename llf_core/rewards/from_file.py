"""Reward functions from a Python file, for training from a terminal."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING

from llf_core.rewards import decorator
from llf_core.untrusted import leads_to_file, real_path

if TYPE_CHECKING:
    from pathlib import Path

    from llf_core.rewards.signature import RewardFunction


def from_file(path: Path) -> list[RewardFunction]:
    """Execute a Python file and return the functions decorated with `@reward`, for `llf train --rewards FILE`.

    In a notebook the functions are in cells; this is the way to bring them from a terminal. The file can import modules
    of its own folder.

    Args:
        path: the file; its code runs in this process.

    Returns:
        The functions that it registered, in order of definition.

    Raises:
        ValueError: the file does not exist, raises an error, or has no function under `@reward`.
    """
    before = dict(decorator.registered_functions())
    # Not the file's own name, by which the trainer could import another module.
    name = f"llf_rewards_of_{path.stem}"
    spec = spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not leads_to_file(path):
        raise ValueError(f"{path} cannot be read. Expected a Python file, such as rewards.py.")
    module = sys.modules[name] = module_from_spec(spec)
    folder = str(real_path(path).parent)
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(".")
        raise ValueError(f"{path} cannot be run: {cause}.") from error
    finally:
        sys.path.remove(folder)
    found = [
        function for called, function in decorator.registered_functions().items() if before.get(called) is not function
    ]
    if not found:
        raise ValueError(
            f"{path} has no reward function. Expected a function under @reward (from llf_core.rewards import reward)."
        )
    return found
