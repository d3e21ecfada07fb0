"""Group Relative Policy Optimization: each answer against the others to its prompt (arXiv 2402.03300), by TRL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declarations.stages.grpo import GRPOOptions
from llf_core.stages.online.stage import OnlineStage

if TYPE_CHECKING:
    from trl import GRPOConfig

    from llf_core.stages.online.trl_trainers import Online


class GRPO(OnlineStage):
    """An answer counts by how far its reward is above the mean of the answers to the same prompt."""

    options = GRPOOptions

    def _trl_classes(self) -> tuple[type[GRPOConfig], type[Online]]:
        from trl import GRPOConfig

        from llf_core.stages.online.trl_trainers import OnlineGRPO

        return GRPOConfig, OnlineGRPO
