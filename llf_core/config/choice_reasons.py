"""Why methods, optimizers, quantizers and strategies cannot be chosen beside other values: a form greys them out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from llf_core.config.declaration import MethodDeclaration, OptimizerDeclaration
from llf_core.config.field_specs import field
from llf_core.config.quantizers import QUANTIZERS
from llf_core.config.registry import declared
from llf_core.config.rules import all_rules
from llf_core.config.sections import STRATEGIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.config.declaration import Declaration
    from llf_core.config.quantizers import Quantizer
    from llf_core.config.rule import Rule
    from llf_core.config.sections import Strategy
    from llf_core.config.values import ConfigValues

QUANTIZER_KEY, STRATEGY_KEY = "quantization_method", "strategy"


def explained_choices(key: str) -> Mapping[str, Declaration | Quantizer | Strategy]:
    """The methods, optimizers, quantizers or strategies that a key selects by their names; empty for any other key."""
    if key == STRATEGY_KEY:
        return STRATEGIES
    return QUANTIZERS if key == QUANTIZER_KEY else _plugins(key)


def _plugins(key: str) -> Mapping[str, Declaration]:
    kind = next((one for one in (MethodDeclaration, OptimizerDeclaration) if one.key == key), None)
    return {} if kind is None else declared(kind)


def choice_reasons(config: ConfigValues, key: str) -> dict[str, str]:
    """Find the methods, optimizers, quantizers or strategies that the rest of a config, or this machine, exclude.

    Only rules about the key are checked. What a plug-in needs of its own options does not exclude it, since they are
    set once it is chosen.

    Args:
        key: `finetuning_type`, `optim`, `quantization_method` or `strategy`.
    """
    if key == QUANTIZER_KEY:
        return _quantizer_reasons(config)
    if key == STRATEGY_KEY:
        return _strategy_reasons(config)
    offered = _plugins(key)
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


def _quantizer_reasons(config: ConfigValues) -> dict[str, str]:
    """One that quantizes is tried with the config's bits, or where it has none or others, with bits of its own."""
    rules = [rule for rule in all_rules() if QUANTIZER_KEY in rule.fields]
    found: dict[str, str] = {}
    for name, one in QUANTIZERS.items():
        bits: int | None = config.model.quantization_bit
        bits = bits if bits in one.bits or not one.bits else one.usual_bits
        changes = {QUANTIZER_KEY: name, "quantization_bit": bits}
        candidate = replace(config, model=config.model.model_copy(update=changes))
        if reason := _reason(rules, candidate):
            found[name] = reason
    return found


def _strategy_reasons(config: ConfigValues) -> dict[str, str]:
    rules = [rule for rule in all_rules() if STRATEGY_KEY in rule.fields]
    found = {}
    for name in STRATEGIES:
        candidate = replace(config, launch=config.launch.model_copy(update={STRATEGY_KEY: name}))
        if reason := _reason(rules, candidate):
            found[name] = reason
    return found


def _reason(rules: Sequence[Rule], candidate: ConfigValues) -> str:
    """The message of the first rule that refuses a config; empty if none does."""
    problems = (rule.check(candidate) for rule in rules)
    return next((one.message for one in problems if one is not None and one.severity == "error"), "")
