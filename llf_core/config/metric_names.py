"""Names of metrics in a config."""

from __future__ import annotations

from llf_core.config.declaration import MetricDeclaration
from llf_core.config.registry import declared


def declarations_of(name: str) -> list[MetricDeclaration]:
    """The declarations that a name selects: one metric, all of a group, or none if it is no declared name.

    Names that select none are functions of the user, see `function_name`.
    """
    return [one for one in declared(MetricDeclaration).values() if name and name in {one.name, one.group}]


def known_names() -> list[str]:
    """Names of all declared metrics and groups, to suggest and explain valid ones.

    Groups and metrics that are in no group come first, then the metrics of groups.
    """
    every = declared(MetricDeclaration).values()
    return list(dict.fromkeys([*(one.group or one.name for one in every), *(one.name for one in every)]))


def function_name(name: str) -> str:
    """Name of the function that a name in `metrics` means, in results and in `code/`.

    Args:
        name: `f`, or `file.py:f`.
    """
    return name.rpartition(":")[2]


def is_in_file(name: str) -> bool:
    """Whether a name in `metrics` is that of a function in a file, `file.py:f`, whose path and source are then kept."""
    path, _, function = name.rpartition(":")
    return path.endswith(".py") and function.isidentifier()
