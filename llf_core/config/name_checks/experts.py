from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.problem import Fix, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.run_config import RunConfig

KEY = "moe_aux_loss_coef"


def check_experts(settings: Mapping[str, object], config: RunConfig) -> tuple[Problem, ...]:
    """Refuse the auxiliary loss of routers for a model whose `config.json`, unless empty, names no experts."""
    tables = [settings, *(value for value in settings.values() if isinstance(value, dict))]
    if not config.get(KEY) or not settings or any("expert" in str(key) for table in tables for key in table):
        return ()
    wrong = (
        f"{KEY} is {config.get(KEY):g}, and {config.get('model_name_or_path')} has no experts. Expected a "
        "mixture-of-experts model, such as Mixtral or Qwen3-MoE."
    )
    fix = Fix("Train without it", {KEY: None})
    return (Problem("violation", KEY, config.get(KEY), wrong, (fix,), "error", keys=(KEY, "model_name_or_path")),)
