"""Functions from a Python file, for a terminal."""

from __future__ import annotations

import sys
from contextlib import suppress
from importlib.util import module_from_spec, spec_from_file_location
from typing import TYPE_CHECKING

from llf_core.untrusted import leads_to_file, real_path

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from llf_core.user_functions.function_kind import FunctionKind
    from llf_core.user_functions.signature import UserFunction


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
