"""Group Relative Policy Optimization: each answer against the others to its prompt (arXiv 2402.03300), by TRL."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from llf_core.config.option import Section, option
from llf_core.config.problem import Fix
from llf_core.config.rule import Rule
from llf_core.stages.online.stage import OnlineStage

if TYPE_CHECKING:
    from trl import GRPOConfig

    from llf_core.stages.online.trl_trainers import Online

LOSSES = ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo")
SCALES = ("group", "batch", "none")


class GRPOOptions(Section):
    """How the answers of a group are weighed."""

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


class GRPO(OnlineStage):
    """An answer counts by how far its reward is above the mean of the answers to the same prompt."""

    name: ClassVar[str] = "grpo"
    label: ClassVar[str] = "grpo (rewards, compared in groups)"
    Options: ClassVar[type[Section]] = GRPOOptions
    own: ClassVar[tuple[str, ...]] = tuple(GRPOOptions.model_fields)
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            ("loss_type", "importance_sampling_level"),
            lambda c: (
                c.stage.stage == "grpo"
                and c.get("loss_type") == "luspo"
                and c.get("importance_sampling_level") == "token"
            ),
            "The loss luspo weighs whole answers. Expected importance_sampling_level sequence.",
            (Fix("Compare whole answers", {"importance_sampling_level": "sequence"}),),
            severity="warning",
        ),
    )

    def _library(self) -> tuple[type[GRPOConfig], type[Online]]:
        from trl import GRPOConfig

        from llf_core.stages.online.trl_trainers import OnlineGRPO

        return GRPOConfig, OnlineGRPO
