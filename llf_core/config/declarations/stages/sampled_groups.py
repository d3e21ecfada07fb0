"""Shared declarations of the stages that sample a group of completions for each prompt (GRPO, RLOO).

Group relative policy optimization (arXiv 2402.03300).

REINFORCE leave-one-out (arXiv 2402.14740).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from llf_core.config.declaration import StageDeclaration
from llf_core.config.option import Section, option
from llf_core.config.rule import Fix, Rule

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.values import ConfigValues

GENERATION_KEYS = ("temperature", "top_p", "top_k", "repetition_penalty")

OTHER_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "max_new_tokens": "max_completion_length",
        "max_length": "max_completion_length",
        "pref_beta": "beta",
        "ppo_kl_coef": "beta",
        "ppo_cliprange": "epsilon",
        "ppo_epochs": "num_iterations",
        "kd_temperature": "temperature",
    }
)


def completion_tokens(config: ConfigValues, _prompt: int) -> int:
    """Maximum number of tokens of a completion, whatever its prompt."""
    return config.stage.max_completion_length


def uses_of_completion(config: ConfigValues) -> int:
    """Optimizer steps that learn from a completion: `num_iterations` (μ of arXiv 2402.03300, algorithm 1)."""
    return config.stage.num_iterations


def epoch_steps(config: ConfigValues, rows: float) -> int:
    """Number of optimizer steps in which every prompt gets its completions once, as TRL's trainers count them.

    A batch counts completions, and prompts that do not fill the last one are left out.
    """
    training, stage = config.training, config.stage
    step = training.per_device_train_batch_size * training.gradient_accumulation_steps
    completions = step * config.launch.ranks
    prompts = max(1, completions // stage.num_generations)
    return int(rows // prompts) * stage.num_iterations


def declare_group_stage(  # noqa: PLR0913 - what tells such stages apart
    name: str, label: str, implementation: str, options: type[Section], rules: tuple[Rule, ...] = (), *, beta: float
) -> StageDeclaration:
    """Declare a stage that samples a group of completions for each prompt.

    Args:
        implementation: `package.module:Class`.
        beta: its default of `beta`, that of TRL's trainer; at 0 no reference model is loaded.
    """
    return StageDeclaration(
        name=name,
        label=label,
        implementation=implementation,
        options=options,
        rules=rules,
        data_kind="prompts",
        loss_kind="reward",
        evaluation_metrics=MappingProxyType({"reward": True}),
        pads=True,
        holds_reference=lambda config: (beta if config.stage.beta is None else config.stage.beta) > 0,
        uses_rewards=True,
        samples_groups=True,
        generation_keys=GENERATION_KEYS,
        other_names=OTHER_NAMES,
        completion_limit="max_completion_length",
        completion_tokens=completion_tokens,
        uses_of_completion=uses_of_completion,
        epoch_steps=epoch_steps,
    )


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
