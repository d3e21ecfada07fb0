"""Group relative policy optimization (arXiv 2402.03300)."""

from __future__ import annotations

from typing import Literal

from llf_core.config.declarations.stages.sampled_groups import declare_group_stage
from llf_core.config.option import Section, option
from llf_core.config.problem import Fix
from llf_core.config.rule import Rule

LOSSES = ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo")
SCALES = ("group", "batch", "none")


class GRPOOptions(Section):
    """Options of GRPO."""

    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = option(
        "dapo",
        label="Loss aggregation",
        help="How token losses are averaged: over all tokens (`dapo`), or first over each completion (`grpo`).",
        choices=LOSSES,
        source="Hugging Face",
    )
    scale_rewards: Literal["group", "batch", "none"] = option(
        "group",
        label="Scale rewards by",
        help="Divides rewards by their standard deviation in the group, in the batch, or not at all.",
        choices=SCALES,
        source="Hugging Face",
    )
    importance_sampling_level: Literal["token", "sequence"] = option(
        "token",
        label="Importance ratio",
        help="Ratio to the sampling policy: for each token, or for the whole completion (GSPO).",
        choices=("token", "sequence"),
        source="Hugging Face",
    )


RULES = (
    Rule(
        ("loss_type", "importance_sampling_level"),
        lambda c: (
            c.stage.stage == "grpo" and c.get("loss_type") == "luspo" and c.get("importance_sampling_level") == "token"
        ),
        "The loss luspo weighs whole answers. Expected importance_sampling_level sequence.",
        (Fix("Compare whole answers", {"importance_sampling_level": "sequence"}),),
        severity="warning",
    ),
)
GRPO = declare_group_stage(
    "grpo", "grpo (rewards, compared in groups)", "llf_core.stages.online.stage:GRPO", GRPOOptions, RULES, beta=0.0
)
