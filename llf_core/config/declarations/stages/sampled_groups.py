"""Shared declarations of the stages that sample a group of completions for each prompt (GRPO, RLOO)."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from llf_core.config.declaration import StageDeclaration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.option import Section
    from llf_core.config.rule import Rule
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
