"""Completions that a stage has sampled, and their scores by reward functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llf_core.config.registry import stage_of
from llf_core.config.rules.stages import parse_reward_weights
from llf_core.data import DataError
from llf_core.data.validation_split import prompts_of
from llf_core.rewards import Completion, RewardError, ScoredCompletion, WeightedSum, fix_message, load_rewards
from llf_core.rewards.call_reward import LARGEST
from llf_core.rewards.decorator import TRAINER_PARAMETERS
from llf_core.stages.base.context import StopTraining

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.data.validation_split import Prompts
    from llf_core.rewards import Reward
    from llf_core.stages.base.context import TrainingContext

SHOWN = 60


@dataclass(frozen=True)
class SampledCompletion:
    """A completion that the policy has sampled.

    Attributes:
        prompt, answer: token ids; at least one of the answer.
        index: of the prompt among the prepared examples.
        held_out: whether the prompt is of the evaluation set.
    """

    prompt: Sequence[int]
    answer: Sequence[int]
    index: int = 0
    held_out: bool = False


@dataclass(frozen=True)
class Score:
    """Score of a completion: weighted sum, and rewards by function; None where no function applies."""

    total: float | None
    rewards: Mapping[str, float | None] = field(default_factory=dict)


Scoring = Callable[[Sequence[SampledCompletion]], Sequence[Score]]


@dataclass(frozen=True)
class PromptScoring:
    """Scoring of a stage's completions, and the indices of the prepared examples that can be scored."""

    prompts: Sequence[int]
    score: Scoring


class FunctionScoring:
    """Weighted sum of the rewards of reward functions; `indices` are the prepared examples that can be scored."""

    def __init__(self, weighted_sum: WeightedSum, prompts: Prompts, text: Callable[[Sequence[int]], str]) -> None:
        """Bind reward functions; `text` decodes token ids."""
        self.indices, self.eval_indices = prompts.places, prompts.eval_places
        self._weighted_sum, self._text = weighted_sum, text
        self._rows = {False: prompts.train, True: prompts.eval}
        kept = {False: prompts.places, True: prompts.eval_places}
        self._at = {held: {index: row for row, index in enumerate(indices)} for held, indices in kept.items()}

    def __call__(self, completions: Sequence[SampledCompletion]) -> list[Score]:
        """One score per completion.

        Raises:
            StopTraining: a function failed, or did not return a number.
        """
        scored = [ScoredCompletion(self._answered(one)) for one in completions]
        for reward in self._weighted_sum.rewards:
            try:
                values = reward.score([one.completion for one in scored])
            except RewardError as error:
                raise StopTraining(error.message, fix_message(error.name)) from error
            for one, value in zip(scored, values, strict=True):
                one.rewards[reward.name] = value
        return [Score(self._weighted_sum.total(one), one.rewards) for one in scored]

    def _answered(self, one: SampledCompletion) -> Completion:
        rows = self._rows[one.held_out]
        assert rows is not None  # noqa: S101 - for the type checker
        row = rows[self._at[one.held_out][one.index]]
        return Completion(row["prompt"], self._text(one.answer), list(one.answer), row["row"], row["expected"])


def scoring_by_functions(context: TrainingContext) -> FunctionScoring:
    """Load the reward functions of a run for stages without TRL's trainers, and warn of prompts that are left out."""
    config, stage = context.config, context.config.stage
    limit = stage_of(config).completion_tokens(config, 0)
    options = {"reward_pattern": stage.reward_pattern, "max_completion_length": limit}
    rewards = load_rewards(stage.reward_functions or (), context.folder.code, options)
    prompts = prompts_of(config, context.data, (context.folder.path,))
    check_columns(prompts, rewards)
    _check_parameters(rewards)
    report_left_out(context, prompts)
    weights = parse_reward_weights(stage.reward_weights) or (1.0,) * len(rewards)
    return FunctionScoring(
        WeightedSum(rewards, weights), prompts, lambda ids: str(context.tokenizer.decode(ids, skip_special_tokens=True))
    )


def report_left_out(context: TrainingContext, prompts: Prompts) -> None:
    """Warn of prompts that are left out; DataError if `stop_on_dropped` is true."""
    if not prompts.left_out:
        return
    if context.config.data.stop_on_dropped:
        raise DataError(
            f"{prompts.left_out} `stop_on_dropped` is true. Raise cutoff_len or change these records, or set "
            "`stop_on_dropped` to false to train without them."
        )
    context.writer.warn("cutoff_len", prompts.left_out)


def check_finite(
    scores: Sequence[Score], completions: Sequence[SampledCompletion], text: Callable[[Sequence[int]], str]
) -> Sequence[Score]:
    """Check that all scores are finite in float32; `text` decodes token ids.

    Raises:
        StopTraining: a score is NaN, infinite, or beyond the range of float32.
    """
    for score, one in zip(scores, completions, strict=True):
        if score.total is not None and not abs(score.total) <= LARGEST:
            raise StopTraining(
                f'The reward of a completion of "{_shown(text(one.prompt))}" is {score.total}. '
                "Expected a finite number of float32.",
                "Test the reward model with this prompt, then resume from the last checkpoint.",
            )
    return scores


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else "…" + line[-SHOWN:]


def _check_parameters(rewards: Sequence[Reward]) -> None:
    """Refuse reward functions that need arguments of TRL's trainers."""
    for reward in rewards:
        wanted = sorted({*reward.signature.required} & {*TRAINER_PARAMETERS})
        if wanted:
            raise DataError(
                f"The reward function {reward.name} takes {', '.join(wanted)}, which only TRL trainers provide. "
                "Give it a default value, or remove it."
            )


def check_columns(prompts: Prompts, rewards: Sequence[Reward]) -> None:
    """Check that the data set has the columns and references of reward functions; DataError if one is missing."""
    columns = ", ".join(prompts.columns)
    for reward in rewards:
        missing = [name for name in reward.signature.columns if name not in prompts.columns]
        if missing:
            raise DataError(
                f"The reward function {reward.name} takes {', '.join(missing)}, which is not a column of the data set "
                f"(columns: {columns}). Rename the parameter, or give it a default."
            )
        if reward.expects and not any(row["expected"] is not None for row in prompts.train):
            raise DataError(
                f"The reward {reward.name} needs a reference answer, and the data set has none (columns: "
                f"{columns}). Expected a column answer or solution; or take another reward function."
            )


def last_messages(context: TrainingContext) -> dict[int, str]:
    """Last message of each training prompt, by index of the prepared example; empty if unreadable."""
    try:
        found = prompts_of(context.config, context.data, (context.folder.path,))
    except DataError:
        return {}
    rows = zip(found.places, found.train, strict=True)
    return {index: str(row["prompt"][-1]["content"]) for index, row in rows}
