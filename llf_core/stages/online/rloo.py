"""REINFORCE Leave-One-Out (arXiv 2402.14740), by TRL's trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.declarations.stages.rloo import RLOOOptions
from llf_core.stages.online.stage import OnlineStage

if TYPE_CHECKING:
    from trl import RLOOConfig

    from llf_core.stages.online.trl_trainers import OnlineTrainer


class RLOO(OnlineStage):
    """RLOO: the advantage of a completion is its reward, with KL penalty, minus the mean of the group's others."""

    options = RLOOOptions

    def _trl_classes(self) -> tuple[type[RLOOConfig], type[OnlineTrainer]]:
        from trl import RLOOConfig

        from llf_core.stages.online.trl_trainers import OnlineRLOO

        return RLOOConfig, OnlineRLOO
