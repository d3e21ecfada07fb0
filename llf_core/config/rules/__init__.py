"""Validation rules: impossible or risky combinations of values, with reason and fixes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.registry import all_declared
from llf_core.config.rules.adapters import ADAPTERS
from llf_core.config.rules.data import DATA
from llf_core.config.rules.evaluation import EVALUATION
from llf_core.config.rules.hubs import HUBS
from llf_core.config.rules.optimization import OPTIMIZATION
from llf_core.config.rules.optimizers import optimizer_rules
from llf_core.config.rules.precision import PRECISION
from llf_core.config.rules.preference import PREFERENCE
from llf_core.config.rules.process import PROCESS
from llf_core.config.rules.processes import PROCESSES
from llf_core.config.rules.quantization import QUANTIZATION
from llf_core.config.rules.sampling import SAMPLING
from llf_core.config.rules.stage_keys import stage_key_rules
from llf_core.config.rules.sync import SYNC
from llf_core.config.rules.tokens import TOKENS
from llf_core.config.rules.typical_values import TYPICAL_VALUE_RULES

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
