"""Finds metrics by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declaration import MetricDeclaration
from llf_core.config.did_you_mean import any_of, did_you_mean
from llf_core.config.registry import declared
from llf_core.metrics.metric import Metric, MetricError

if TYPE_CHECKING:
    from collections.abc import Iterable


def load_metrics(names: Iterable[str]) -> list[Metric]:
    """Load metrics by name, before anything is measured: libraries that are missing are found then.

    Args:
        names: names of built-in metrics, of plug-ins, or of groups such as `rouge`.

    Returns:
        The metrics in the order of their names, each once; a group gives all of its metrics.

    Raises:
        MetricError: a metric is unknown, or a package that it needs is not installed.
        PluginError: two packages declare the same name, or an implementation cannot be imported.
    """
    found: dict[str, Metric] = {}
    for name in names:
        for one in _declarations(name):
            if one.name not in found:
                found[one.name] = one.load(Metric)(one)
    return list(found.values())


def _declarations(name: str) -> list[MetricDeclaration]:
    """The declarations that a name selects."""
    every = declared(MetricDeclaration)
    found = [one for one in every.values() if name in {one.name, one.group}]
    if not found:
        known = list(dict.fromkeys(one.group or one.name for one in every.values()))
        raise MetricError(
            name,
            f"Unknown metric {name!r}. Expected {any_of(known)}.{did_you_mean(name, [*known, *every])}",
        )
    return found
