"""Why some methods and optimizers cannot be chosen beside the other values of a config: a form greys them out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llf_core.config.declaration import MethodDeclaration, OptimizerDeclaration
from llf_core.config.field_specs import field
from llf_core.config.registry import declared
from llf_core.config.rules import all_rules

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.declaration import Declaration
    from llf_core.config.values import ConfigValues


def plugins_of(key: str) -> Mapping[str, Declaration]:
    """The methods or optimizers that a key selects by their names; empty for any other key.

    A form shows their summaries in its list.

    Args:
        key: a key of a config.

    Raises:
        PluginError: two installed packages declare the same plug-in.
    """
    kind = next((one for one in (MethodDeclaration, OptimizerDeclaration) if one.key == key), None)
    return {} if kind is None else declared(kind)


def choice_reasons(config: ConfigValues, key: str) -> dict[str, str]:
    """Find the methods or optimizers that the other values of a config exclude.

    Only rules about the key are checked, which takes milliseconds. What a plug-in needs of its own options does not
    exclude it, since they are set once it is chosen.

    Args:
        config: the config as it is.
        key: `finetuning_type` or `optim`.

    Returns:
        The reasons by the names of the plug-ins that cannot be chosen; empty for any other key.

    Raises:
        PluginError: two installed packages declare the same name or key.
    """
    offered = plugins_of(key)
    rules = [rule for rule in all_rules() if key in rule.fields] if offered else []
    found: dict[str, str] = {}
    for name, one in offered.items():
        section = getattr(config, one.section)
        candidate = replace(config, **{one.section: section.model_copy(update={key: name})})
        for rule in rules:
            own = any(
                (spec := field(other)) is not None and spec.owner == f"{one.kind}.{name}"
                for other in rule.fields
                if other != getattr(one, "switch", "")  # it selects the plug-in, and is not needed beside its name
            )
            problem = None if own else rule.check(candidate)
            if problem is not None and problem.severity == "error":
                found[name] = problem.message
                break
    return found
