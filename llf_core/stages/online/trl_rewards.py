"""A run's reward functions as TRL's trainers call them, and completions that a checkpoint keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object

from llf_core.rewards import Completion, RewardError, ScoredCompletion, WeightedSum, unscored_message
from llf_core.rewards.decorator import TRAINER_PARAMETERS
from llf_core.stages.base.ranks import sum_over_ranks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from llf_core.rewards import Reward


class TRLRewards:
    """Scores batches of completions by reward functions, and keeps the last training batch for metrics and samples.

    Attributes:
        functions: called by TRL, one for each reward function and with its name.
        last: completions of the last training batch, those of one prompt side by side.
        tokens: of all completions that were trained on, of all processes.
        training: returns whether the present batch is trained on, not evaluated.
        tell: called once with a config key and a sentence if no function applies to a completion.
    """

    def __init__(
        self,
        rewards: Sequence[Reward],
        weights: Sequence[float],
        decode: Callable[[list[int]], str],
        processes: int = 1,
    ) -> None:
        """Wrap at least one reward function; an error in one of `processes` is raised in all of them."""
        self.functions = [self._function(number, reward) for number, reward in enumerate(rewards)]
        self.last: list[ScoredCompletion] = []
        self.tokens = 0
        self.training: Callable[[], bool] = lambda: True
        self.tell: Callable[[str, str], None] = lambda _key, _message: None
        self._weighted_sum = WeightedSum(rewards, weights)
        self._decode = decode
        self._processes = processes
        self._warned = False
        self._skipped: set[str] = set()
        self._batch: list[ScoredCompletion] = []

    def total(self, completion: ScoredCompletion) -> float | None:
        """Weighted sum of a completion's rewards, as in TRL's advantage; None where no function applies."""
        return self._weighted_sum.total(completion)

    def shown(self, max_completions: int) -> list[ScoredCompletion]:
        """Choose completions of the first prompt to show, from best to worst, evenly spaced in rank.

        One to which no function applies ranks as 0. Empty before the first training batch.
        """
        first = [one for one in self.last if one.completion.messages == self.last[0].completion.messages]
        ranked = sorted(first, key=lambda one: self.total(one) or 0.0, reverse=True)
        if len(ranked) <= max_completions:
            return ranked
        gap = (len(ranked) - 1) / max(max_completions - 1, 1)
        return [ranked[round(number * gap)] for number in range(max_completions)]

    def _function(self, number: int, reward: Reward) -> Callable[..., list[float | None]]:
        def score_batch(
            prompts: list[Sequence[Mapping[str, Any]]],
            completion_ids: list[list[int]],
            row: list[dict[str, Any]],
            expected: list[str | None],
            **trainer_values: Any,
        ) -> list[float | None]:
            if number == 0:
                given = zip(prompts, completion_ids, row, expected, strict=True)
                self._batch = [
                    ScoredCompletion(Completion(messages, self._decode(ids), ids, columns, right))
                    for messages, ids, columns, right in given
                ]
            step = trainer_values["trainer_state"].global_step + 1
            values = self._values(
                reward, {name: trainer_values[name] for name in TRAINER_PARAMETERS if name in trainer_values}, step
            )
            self._record_rewards(reward.name, values, trainer_values["log_metric"])
            if number == len(self._weighted_sum.names) - 1:
                self._finish_batch(step)
            return values

        score_batch.__name__ = reward.name
        return score_batch

    def _values(self, reward: Reward, trainer_values: dict[str, object], step: int) -> list[float | None]:
        values: list[float | None] = []
        failed: list[tuple[str, str]] = []
        try:
            values = reward.score([one.completion for one in self._batch], trainer_values)
        except RewardError as error:
            if self._processes == 1:
                raise RewardError(error.name, _in_step(error.message, step)) from error
            failed = [(error.name, error.message)]
        if self._processes > 1:  # the other processes wait for this one when the rewards are gathered
            failed = gather_object(failed)
        if failed:
            name, message = failed[0]
            raise RewardError(name, _in_step(message, step))
        return values

    def _record_rewards(self, name: str, values: list[float | None], log_metric: Callable[[str, float], None]) -> None:
        for one, value in zip(self._batch, values, strict=True):
            one.rewards[name] = value
        if None in values:
            self._skipped.add(name)
        if name in self._skipped:
            log_metric(f"rewards/{name}/skipped", values.count(None) / len(values))

    def _finish_batch(self, step: int) -> None:
        none = sum(self.total(one) is None for one in self._batch)
        if none and not self._warned:
            self._warned = True
            self.tell(
                "reward_functions",
                _in_step(unscored_message(none, len(self._batch)), step),
            )
        if self.training():
            self.last = self._batch
            self.tokens += int(sum_over_ranks(torch.tensor(sum(len(one.completion.tokens) for one in self._batch))))


def _in_step(message: str, step: int) -> str:
    return f"In step {step}, {message[0].lower()}{message[1:]}"


@dataclass
class Rollout:
    """Completions of a checkpoint that the steps after it still learn from.

    Attributes:
        inputs: for each batch tensors `[completions, …]` and scalars by name, as TRL's trainer buffers them.
    """

    inputs: list[dict[str, Any]] | None = None

    def take(self) -> list[dict[str, Any]] | None:
        """Return the inputs and clear them, so that the trainer has the only copy of the tensors."""
        inputs, self.inputs = self.inputs, None
        return inputs
