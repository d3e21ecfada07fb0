"""REINFORCE Leave-One-Out: each answer against the mean of the others (arXiv 2402.14740), by TRL."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from llf_core.config.option import Section, option
from llf_core.stages.online.stage import OnlineStage

if TYPE_CHECKING:
    from trl import RLOOConfig

    from llf_core.stages.online.trl_trainers import Online


class RLOOOptions(Section):
    """How the answers of a group are weighed."""

    normalize_advantages: bool = option(
        False,
        label="Normalize advantages",
        help="Divides the advantages by their standard deviation in the batch.",
        source="Hugging Face",
    )


class RLOO(OnlineStage):
    """An answer counts by how far its reward, less its KL divergence, is above the mean of the other answers."""

    name: ClassVar[str] = "rloo"
    label: ClassVar[str] = "rloo (rewards, each against the others)"
    Options: ClassVar[type[Section]] = RLOOOptions
    own: ClassVar[tuple[str, ...]] = tuple(RLOOOptions.model_fields)

    def _library(self) -> tuple[type[RLOOConfig], type[Online]]:
        from trl import RLOOConfig

        from llf_core.stages.online.trl_trainers import OnlineRLOO

        return RLOOConfig, OnlineRLOO
