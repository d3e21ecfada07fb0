"""Every impossible or risky combination of values, each with the reason and what mends it."""

from __future__ import annotations

from llf_core.config.problem import Fix
from llf_core.config.rule import Rule
from llf_core.config.spec import option_classes

RULES: tuple[Rule, ...] = (
    Rule(
        ("dataset",),
        lambda c: not c.data.dataset,
        "No data set is chosen. Expected a name, a file or a folder.",
        (Fix("Take the demo data set", {"dataset": "llf_demo"}),),
    ),
)


def all_rules() -> tuple[Rule, ...]:
    """Ours, then those of every plug-in."""
    return (*RULES, *(rule for plugin in option_classes().values() for rule in plugin.rules))
