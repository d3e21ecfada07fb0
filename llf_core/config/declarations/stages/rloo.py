"""REINFORCE leave-one-out (arXiv 2402.14740)."""

from __future__ import annotations

from llf_core.config.declarations.stages.sampled_groups import declare_group_stage
from llf_core.config.option import Section, option


class RLOOOptions(Section):
    """Options of RLOO."""

    normalize_advantages: bool = option(
        False,
        label="Normalize advantages",
        help="Divides the advantages by their standard deviation in the batch.",
        source="Hugging Face",
    )


RLOO = declare_group_stage(
    "rloo", "rloo (rewards, each against the others)", "llf_core.stages.online.stage:RLOO", RLOOOptions, beta=0.05
)
