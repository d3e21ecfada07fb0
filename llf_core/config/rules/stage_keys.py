"""Keys that mean something in one stage and have another name in the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.field_specs import field
from llf_core.config.problem import Fix
from llf_core.config.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.run_config import RunConfig

_PREFERENCE = {"dpo": "pref_beta", "kto": "pref_beta"}
_ANSWERS = {"grpo": "max_completion_length", "rloo": "max_completion_length"}
CALLED: Mapping[str, Mapping[str, str]] = {
    "max_new_tokens": _ANSWERS,
    "max_length": _ANSWERS,
    "max_completion_length": {"ppo": "max_new_tokens"},
    "pref_beta": {"grpo": "beta", "rloo": "beta", "ppo": "ppo_kl_coef"},
    "beta": _PREFERENCE | {"ppo": "ppo_kl_coef"},
    "ppo_kl_coef": _PREFERENCE | {"grpo": "beta", "rloo": "beta"},
    "epsilon": {"ppo": "ppo_cliprange"},
    "ppo_cliprange": {"grpo": "epsilon", "rloo": "epsilon"},
    "num_iterations": {"ppo": "ppo_epochs"},
    "ppo_epochs": {"grpo": "num_iterations", "rloo": "num_iterations"},
    "temperature": {"kd": "kd_temperature"},
    "kd_temperature": {"grpo": "temperature", "rloo": "temperature", "ppo": "temperature"},
    "teacher_model": _PREFERENCE.fromkeys(_PREFERENCE, "ref_model") | {"ppo": "ref_model"},
    "ref_model": {"kd": "teacher_model"},
}
"""By key and stage, the key that does the same there."""


def _right(config: RunConfig, key: str) -> str | None:
    """What a key that is set is called in the stage; None where it is called so, or is not set."""
    spec = field(key)
    right = CALLED[key].get(config.stage.stage)
    return right if right and spec and config.get(key) != spec.default else None


def _rule(key: str) -> Rule:
    return Rule(
        (key, "stage"),
        lambda c: _right(c, key) is not None,
        lambda c: f"`{key}` has no effect in stage {c.stage.stage}, which calls this `{_right(c, key)}`.",
        lambda c: (
            Fix(f"Set {_right(c, key)} to {c.get(key)}", {key: None, str(_right(c, key)): c.get(key)}),
            Fix(f"Take out {key}", {key: None}),
        ),
    )


STAGE_KEYS: tuple[Rule, ...] = tuple(_rule(key) for key in CALLED)
