"""Every impossible or risky combination of values, each with the reason and what mends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.field_specs import option_classes
from llf_core.config.rules.data import DATA
from llf_core.config.rules.evaluation import EVALUATION
from llf_core.config.rules.optimization import OPTIMIZATION
from llf_core.config.rules.precision import PRECISION
from llf_core.config.rules.preference import PREFERENCE
from llf_core.config.rules.process import PROCESS
from llf_core.config.rules.sampling import SAMPLING
from llf_core.config.rules.stage_keys import STAGE_KEYS
from llf_core.config.rules.typical_values import USUAL

if TYPE_CHECKING:
    from llf_core.config.rule import Rule

RULES: tuple[Rule, ...] = (
    *DATA,
    *EVALUATION,
    *OPTIMIZATION,
    *PRECISION,
    *PROCESS,
    *PREFERENCE,
    *SAMPLING,
    *STAGE_KEYS,
    *USUAL,
)


def all_rules() -> tuple[Rule, ...]:
    """Ours, then those of every plug-in."""
    return (*RULES, *(rule for plugin in option_classes().values() for rule in plugin.rules))
