"""REINFORCE Leave-One-Out: each answer against the mean of the others (arXiv 2402.14740), by TRL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declarations.stages.rloo import RLOOOptions
from llf_core.stages.online.stage import OnlineStage

if TYPE_CHECKING:
    from trl import RLOOConfig

    from llf_core.stages.online.trl_trainers import Online


class RLOO(OnlineStage):
    """An answer counts by how far its reward, less its KL divergence, is above the mean of the other answers."""

    options = RLOOOptions

    def _trl_classes(self) -> tuple[type[RLOOConfig], type[Online]]:
        from trl import RLOOConfig

        from llf_core.stages.online.trl_trainers import OnlineRLOO

        return RLOOConfig, OnlineRLOO
