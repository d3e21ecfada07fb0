"""Public names of a package that are imported when they are used first (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def lazy_exports(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the `__getattr__` of a package whose public names are imported when they are used first.

    A command or a form that needs one name of a package then does not wait for the imports of all its modules.

    Args:
        homes: module of each public name, absolute or, as in `.device`, relative to the package.

    Returns:
        A function that imports a name and keeps it in the package. It raises an `AttributeError` for any other name,
        and the `ImportError` of a module that cannot be imported.
    """

    def bring(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(homes[name], package), name)
        setattr(sys.modules[package], name, value)
        return value

    return bring
