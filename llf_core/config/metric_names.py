from __future__ import annotations

from llf_core.config.declaration import MetricDeclaration
from llf_core.config.registry import declared


def declarations_of(name: str) -> list[MetricDeclaration]:
    """The declarations of one metric or of all in a group; empty for any other name, such as a function's."""
    return [one for one in declared(MetricDeclaration).values() if name and name in {one.name, one.group}]


def known_names() -> list[str]:
    """Names of all declared metrics and groups: groups and metrics in no group first, then the metrics of groups."""
    every = declared(MetricDeclaration).values()
    return list(dict.fromkeys([*(one.group or one.name for one in every), *(one.name for one in every)]))


def function_name(name: str) -> str:
    """Name of the function that `f` or `file.py:f` in `metrics` means, in results and in `code/`."""
    return name.rpartition(":")[2]


def is_in_file(name: str) -> bool:
    """Whether a name in `metrics` is that of a function in a file, `file.py:f`."""
    path, _, function = name.rpartition(":")
    return path.endswith(".py") and function.isidentifier()
