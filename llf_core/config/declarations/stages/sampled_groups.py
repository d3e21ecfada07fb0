"""Shared declarations of the stages that sample a group of completions for each prompt (GRPO, RLOO)."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.values import ConfigValues

GENERATION_KEYS = ("temperature", "top_p", "top_k", "repetition_penalty")
OTHER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "max_new_tokens": "max_completion_length",
        "max_length": "max_completion_length",
        "pref_beta": "beta",
        "ppo_kl_coef": "beta",
        "ppo_cliprange": "epsilon",
        "ppo_epochs": "num_iterations",
        "kd_temperature": "temperature",
    }
)


def completion_tokens(config: ConfigValues) -> int:
    """Maximum number of tokens of a completion."""
    return config.stage.max_completion_length
