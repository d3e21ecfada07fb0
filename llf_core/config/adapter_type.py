from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declaration import MethodDeclaration
from llf_core.config.peft_tuners import tuner_names
from llf_core.config.problem import Fix, Problem
from llf_core.config.registry import declared, method_of

if TYPE_CHECKING:
    from llf_core.config.values import ConfigValues


def check_adapter_type(config: ConfigValues, name: str, peft_type: str) -> Problem | None:
    """Check that the config's method continues adapters of a type: PEFT would load others, and train nothing of them.

    Args:
        peft_type: as in `adapter_config.json`.

    Returns:
        An error whose fixes are the methods that continue it, and a new adapter on the merged one.
    """
    method = method_of(config)
    own = method.tuner(config).peft_type if method.tuner else peft_type
    if own == peft_type:
        return None
    fixes = [
        Fix(f"Set finetuning_type: {one.name}", {"finetuning_type": one.name})
        for one in declared(MethodDeclaration).values()
        if one.tuner and one.tuner(config).peft_type == peft_type
    ]
    if not fixes and peft_type in tuner_names():
        fixes.append(
            Fix(
                f"Set finetuning_type: peft, peft_type: {peft_type}",
                {"finetuning_type": "peft", "peft_type": peft_type},
            )
        )
    fixes.append(Fix("Merge it and train a new adapter", {"create_new_adapter": True}))
    what_to_do = fixes[0].label if len(fixes) > 1 else "Set create_new_adapter: true"
    message = (
        f"{name} is an adapter of type {peft_type}, which finetuning_type {method.name} ({own}) cannot continue. "
        f"{what_to_do}."
    )
    keys = ("adapter_name_or_path", "finetuning_type")
    return Problem("violation", "adapter_name_or_path", name, message, tuple(fixes), keys=keys)
