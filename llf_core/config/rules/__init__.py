"""Validation rules: impossible or risky combinations of values, with reason and fixes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.registry import all_declared
from llf_core.config.rules.data import DATA
from llf_core.config.rules.evaluation import EVALUATION
from llf_core.config.rules.model import ADAPTERS, HUBS, PRECISION, QUANTIZATION, TOKENS
from llf_core.config.rules.optimization import OPTIMIZATION, TYPICAL_VALUE_RULES, optimizer_rules
from llf_core.config.rules.process import PROCESS, PROCESSES, SYNC
from llf_core.config.rules.stages import PREFERENCE, SAMPLING, stage_key_rules

if TYPE_CHECKING:
    from llf_core.config.rule import Rule

RULES: tuple[Rule, ...] = (
    *ADAPTERS,
    *DATA,
    *EVALUATION,
    *HUBS,
    *OPTIMIZATION,
    *PRECISION,
    *QUANTIZATION,
    *PROCESS,
    *PROCESSES,
    *PREFERENCE,
    *SAMPLING,
    *SYNC,
    *TOKENS,
    *TYPICAL_VALUE_RULES,
)


def all_rules() -> tuple[Rule, ...]:
    """Built-in rules, then those of the plug-ins, in the order in which their problems are reported."""
    return (
        *RULES,
        *stage_key_rules(),
        *optimizer_rules(),
        *(rule for one in all_declared().values() for rule in one.rules),
    )
