"""Reward models (Bradley-Terry)."""

from __future__ import annotations

from types import MappingProxyType

from llf_core.config.declaration import StageDeclaration
from llf_core.config.option import Section, option
from llf_core.config.problem import Fix
from llf_core.config.rule import Rule


class RMOptions(Section):
    """Options of reward model training."""

    center_rewards_coefficient: float | None = option(
        None,
        unset="none",
        label="Reward centering",
        help="Weight of a term that keeps the rewards of a pair around zero. Typical: 0.01.",
        above=0,
        source="Hugging Face",
    )


RULES = (
    Rule(
        ("watched_prompts", "stage"),
        lambda c: c.stage.stage == "rm" and bool(c.generation.watched_prompts),
        "A reward model scores completions and does not generate text, so watched prompts have no effect.",
        (Fix("Remove the watched prompts", {"watched_prompts": None}),),
    ),
    Rule(
        ("measure_forgetting", "stage"),
        lambda c: c.stage.stage == "rm" and c.training.measure_forgetting,
        "A reward model scores completions and predicts no tokens, so what it forgets cannot be measured.",
        (Fix("Do not measure forgetting", {"measure_forgetting": None}),),
    ),
)
RM = StageDeclaration(
    name="rm",
    label="rm (reward model)",
    implementation="llf_core.stages.rm:RM",
    options=RMOptions,
    rules=RULES,
    data_kind="pairs",
    loss_kind="preference",
    evaluation_metrics=MappingProxyType({"rewards/accuracies": True, "rewards/margins": True}),
    has_reward_head=True,
    generates=False,
)
