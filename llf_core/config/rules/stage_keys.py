"""Rules about options that have another name in the selected stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declaration import StageDeclaration
from llf_core.config.field_specs import field
from llf_core.config.problem import Fix
from llf_core.config.registry import declared, stage_of
from llf_core.config.rule import Rule

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues


def stage_key_rules() -> tuple[Rule, ...]:
    """Create a rule for each key that an installed stage calls by another name (`StageDeclaration.other_names`)."""
    keys = {key for stage in declared(StageDeclaration).values() for key in stage.other_names}
    return tuple(map(_rule, sorted(keys)))


def _name_in_stage(config: ConfigValues, key: str) -> str | None:
    """The name of an option that is set, in the selected stage; None where it is not set, or has no other name."""
    spec = field(key)
    name = stage_of(config).other_names.get(key)
    return name if name and spec and config.get(key) != spec.default else None


def _rule(key: str) -> Rule:
    return Rule(
        (key, "stage"),
        lambda c: _name_in_stage(c, key) is not None,
        lambda c: f"`{key}` has no effect in stage {c.stage.stage}, which calls this `{_name_in_stage(c, key)}`.",
        lambda c: (
            Fix(f"Set {_name_in_stage(c, key)} to {c.get(key)}", {key: None, str(_name_in_stage(c, key)): c.get(key)}),
            Fix(f"Remove {key}", {key: None}),
        ),
    )
