"""Scores of completions from a reward model or an endpoint."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from llf_core.acceleration.patching.causal_head import causal_of, forward_hidden
from llf_core.models.reward_model import apply_head
from llf_core.stages.adapter_switching import use_adapter
from llf_core.stages.completion_scores import Score
from llf_core.stages.ppo.batch import answer_batch
from llf_core.stages.ppo.reward_endpoint import ask_scores

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from llf_core.models.reward_model import RewardModel
    from llf_core.stages.completion_scores import SampledCompletion


class ModelScoring:
    """Scores of a reward model, which reads the completion with the template's suffix, as it was trained.

    A template writes more after a completion than the token that ends it (a newline after `<|im_end|>`), and a
    reward model is trained on the score of the very last token: one token earlier, scores are hardly related to it.
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
            scorer: a separate model, or an adapter of the policy.
            closing: token ids that the chat template writes after the text of a completion.
            ends: tokens that end a completion, replaced by `closing`.
        """
        self._closing, self._ends = list(closing), ends
        self._scorer, self._tokenizer, self._flatten = scorer, tokenizer, flatten
        # A causal model with a separate head is run by the fast path, a classifier by its own forward.
        self._by_head = scorer.head is not None and causal_of(scorer.model).get_output_embeddings() is not None

    def __call__(self, completions: Sequence[SampledCompletion]) -> list[Score]:
        """One score per completion, computed in one forward pass."""
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
        self._url, self._tokenizer = url, tokenizer

    def __call__(self, completions: Sequence[SampledCompletion]) -> list[Score]:
        """One score per completion."""
        texts = [self._tokenizer.decode([*one.prompt, *one.answer], skip_special_tokens=False) for one in completions]
        return [Score(one) for one in ask_scores(self._url, texts)]
