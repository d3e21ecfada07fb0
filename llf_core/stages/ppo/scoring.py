"""Scores of completions: from a reward model, an endpoint, or reward functions."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from llf_core.acceleration.patching.causal_head import causal_of, forward_hidden
from llf_core.models.reward_head import apply_head
from llf_core.rewards import Completion, RewardError, ScoredCompletion, fix_message
from llf_core.stages.adapter_switching import use_adapter
from llf_core.stages.base.cannot_continue import StopTraining
from llf_core.stages.ppo.batch import answer_batch
from llf_core.stages.ppo.reward_endpoint import ask_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from llf_core.data.prompts import Prompts
    from llf_core.models.reward_model import RewardModel
    from llf_core.rewards import WeightedSum

SHOWN = 60
"""Maximum characters of a prompt that a message quotes."""


@dataclass(frozen=True)
class SampledCompletion:
    """A completion that the policy has sampled.

    Attributes:
        prompt: token ids.
        answer: token ids of the completion, at least one.
        index: of the prompt among the prepared examples.
        held_out: whether the prompt is of the evaluation set.
    """

    prompt: Sequence[int]
    answer: Sequence[int]
    index: int = 0
    held_out: bool = False


@dataclass(frozen=True)
class Score:
    """Score of a completion.

    Attributes:
        total: the score; None if no reward function applies.
        rewards: by the name of each reward function; None where one does not apply.
    """

    total: float | None
    rewards: Mapping[str, float | None] = field(default_factory=dict)


class ModelScoring:
    """Scores of a reward model, which reads the policy's tokens and then what it was trained to read after them.

    A template writes more after a completion than the token that ends it (a newline after `<|im_end|>`), and a reward
    model is trained on the score of the very last token: one token earlier, scores are hardly related to it.
    """

    def __init__(
        self,
        scorer: RewardModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        flatten: bool,
        closing: Sequence[int] = (),
        ends: Collection[int] = (),
    ) -> None:
        """Bind a loaded reward model.

        Args:
            scorer: of `llf_core.models.reward_model.load_reward_model`; a model of its own, or an adapter of the
                policy.
            tokenizer: the policy's.
            flatten: whether its model supports flattened batches.
            closing: token ids that the chat template writes after the words of a completion.
            ends: tokens that end a completion; `closing` takes their place.
        """
        self._closing, self._ends = list(closing), ends
        self._scorer, self._tokenizer, self._flatten = scorer, tokenizer, flatten
        # A causal model with a separate head is run by the fast path, a classifier by its own forward.
        self._by_head = scorer.head is not None and causal_of(scorer.model).get_output_embeddings() is not None

    def __call__(self, completions: Sequence[SampledCompletion]) -> list[Score]:
        """One score per completion, computed without gradients in one forward pass.

        Raises:
            RuntimeError: out of memory.
        """
        return [Score(one) for one in self._scores(completions)]

    def _scores(self, completions: Sequence[SampledCompletion]) -> list[float]:
        scorer = self._scorer
        device = next(scorer.model.parameters()).device
        flatten = self._flatten and self._by_head
        batch = answer_batch(
            [one.prompt for one in completions],
            [self._closed(one.answer) for one in completions],
            self._tokenizer,
            device,
            flatten=flatten,
        )
        if not self._by_head:
            found: list[float] = scorer.rewards(batch["input_ids"], batch["attention_mask"]).tolist()
            return found
        indices = _last_read(batch, scorer.ignored_token_id)

        def objective(hidden: Tensor) -> Tensor:
            return apply_head(scorer.head, hidden.reshape(-1, hidden.shape[-1]).index_select(0, indices))

        active = nullcontext() if scorer.adapter is None else use_adapter(scorer.model, scorer.adapter)
        with torch.no_grad(), active:
            scores: list[float] = forward_hidden(scorer.model, batch, objective).tolist()
        return scores

    def _closed(self, answer: Sequence[int]) -> list[int]:
        """A completion with the template's suffix, also one that was truncated before its end."""
        if not self._closing:
            return list(answer)
        return [*(answer[:-1] if answer[-1] in self._ends else answer), *self._closing]


def _last_read(batch: Mapping[str, Any], skipped: int | None) -> Tensor:
    """Positions of the scores: each document's last token that the reward model does not take for padding."""
    ends: Tensor = batch["ends"]
    if skipped is None:
        return ends
    ids = batch["input_ids"].flatten()
    starts = torch.cat([ends.new_zeros(1), ends[:-1] + 1])
    found = []
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        kept = (ids[start : end + 1] != skipped).nonzero()
        found.append(start + int(kept[-1]) if len(kept) else end)
    return torch.tensor(found, device=ids.device)


class EndpointScoring:
    """Scores of an HTTP endpoint, which reads prompt and completion as one text with special tokens."""

    def __init__(self, url: str, tokenizer: PreTrainedTokenizerBase) -> None:
        """Bind an endpoint.

        Args:
            url: of the endpoint.
            tokenizer: converts token ids to text.
        """
        self._url, self._tokenizer = url, tokenizer

    def __call__(self, completions: Sequence[SampledCompletion]) -> list[Score]:
        """One score per completion.

        Raises:
            StopTraining: see `ask_scores`.
        """
        texts = [self._tokenizer.decode([*one.prompt, *one.answer], skip_special_tokens=False) for one in completions]
        return [Score(one) for one in ask_scores(self._url, texts)]


class FunctionScoring:
    """Weighted sum of the rewards of reward functions.

    Attributes:
        indices: prompts that can be scored, as indices of the prepared examples.
        eval_indices: the same for the evaluation set.
    """

    def __init__(self, weighted_sum: WeightedSum, prompts: Prompts, text: Callable[[Sequence[int]], str]) -> None:
        """Bind reward functions.

        Args:
            weighted_sum: the functions with their weights.
            prompts: messages and columns of each prompt, which the functions receive.
            text: converts token ids of a completion to text.
        """
        self.indices, self.eval_indices = prompts.places, prompts.eval_places
        self._weighted_sum, self._text = weighted_sum, text
        self._rows = {False: prompts.train, True: prompts.eval}
        kept = {False: prompts.places, True: prompts.eval_places}
        self._at = {held: {index: row for row, index in enumerate(indices)} for held, indices in kept.items()}

    def __call__(self, completions: Sequence[SampledCompletion]) -> list[Score]:
        """One score per completion; its total is None where no function applies.

        Raises:
            StopTraining: a function failed, or returned no number.
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


def check_finite(
    scores: Sequence[Score], completions: Sequence[SampledCompletion], text: Callable[[Sequence[int]], str]
) -> Sequence[Score]:
    """Check that all scores are finite: a single NaN would spread to every parameter in the next step.

    Args:
        scores: of the completions.
        completions: the completions, for the message.
        text: converts token ids to text.

    Returns:
        `scores`.

    Raises:
        StopTraining: a score is NaN or infinite.
        ValueError: `scores` and `completions` differ in length.
    """
    for score, one in zip(scores, completions, strict=True):
        if score.total is not None and not math.isfinite(score.total):
            raise StopTraining(
                f'The reward of a completion of "{_shown(text(one.prompt))}" is {score.total}. '
                "Expected a finite number.",
                "Test the reward model with this prompt, then resume from the last checkpoint.",
            )
    return scores


def _shown(text: str) -> str:
    """A text in one line; only the end of a long one, which has the last message."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else "…" + line[-SHOWN:]
