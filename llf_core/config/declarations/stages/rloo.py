"""REINFORCE leave-one-out (arXiv 2402.14740)."""

from __future__ import annotations

from llf_core.config.declaration import StageDeclaration
from llf_core.config.declarations.stages.sampled_groups import GENERATION_KEYS, OTHER_NAMES, completion_tokens
from llf_core.config.option import Section, option


class RLOOOptions(Section):
    """Options of RLOO."""

    normalize_advantages: bool = option(
        False,
        label="Normalize advantages",
        help="Divides the advantages by their standard deviation in the batch.",
        source="Hugging Face",
    )


RLOO = StageDeclaration(
    name="rloo",
    label="rloo (rewards, each against the others)",
    implementation="llf_core.stages.online.rloo:RLOO",
    options=RLOOOptions,
    data_kind="prompts",
    loss_kind="reward",
    pads=True,
    uses_rewards=True,
    samples_groups=True,
    generation_keys=GENERATION_KEYS,
    other_names=OTHER_NAMES,
    completion_limit="max_completion_length",
    completion_tokens=completion_tokens,
)
