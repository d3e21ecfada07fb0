"""Group Relative Policy Optimization (arXiv 2402.03300), by TRL's trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declarations.stages.grpo import GRPOOptions
from llf_core.stages.online.stage import OnlineStage

if TYPE_CHECKING:
    from trl import GRPOConfig

    from llf_core.stages.online.trl_trainers import OnlineTrainer


class GRPO(OnlineStage):
    """GRPO: the advantage of a completion is its reward relative to the group of completions of the same prompt."""

    options = GRPOOptions

    def _trl_classes(self) -> tuple[type[GRPOConfig], type[OnlineTrainer]]:
        from trl import GRPOConfig

        from llf_core.stages.online.trl_trainers import OnlineGRPO

        return GRPOConfig, OnlineGRPO
