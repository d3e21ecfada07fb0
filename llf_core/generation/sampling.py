"""Chooses tokens from logits, with transformers' logits processors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper
from transformers import TopKLogitsWarper as TopK
from transformers import TopPLogitsWarper as TopP

from llf_core.user_error import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


@dataclass(frozen=True)
class Sampling:
    """Sampling parameters.

    Attributes:
        do_sample: sample tokens; else decode greedily.
        temperature: temperature of sampling, above 0.
        top_k: number of most likely tokens to sample from; 0 for all.
        top_p: nucleus sampling: cumulative probability of the tokens to sample from, in (0, 1].
        repetition_penalty: divides the scores of tokens that are in the prompt or completion (multiplies negative
            scores); 1 has no effect.
        seed: random seed. Prompt `i` uses `seed + i`, so that its completion does not depend on the other prompts.

    Source:
        Nucleus sampling: arXiv 1904.09751; repetition penalty: arXiv 1909.05858, section 4.1; as transformers computes
        them.
    """

    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    seed: int = 0

    def warpers(self) -> LogitsProcessorList:
        """Logits processors of sampling, in the order of `model.generate`; empty for greedy decoding.

        Raises:
            ValueError: tokens are sampled, and temperature, `top_k` or `top_p` is out of range.
        """
        found = LogitsProcessorList()
        if self.do_sample:
            if not 0 < self.top_p <= 1:
                raise ValueError(f"top_p is {self.top_p}. Expected a number above 0 and at most 1.")
            if self.temperature != 1.0:
                found.append(TemperatureLogitsWarper(float(self.temperature)))
            if self.top_k:
                found.append(TopK(self.top_k))
            if self.top_p < 1.0:
                found.append(TopP(self.top_p))
        return found


class NotFiniteError(UserError, RuntimeError):
    """The logits of a model are NaN or infinite, for example of a policy that has diverged."""


class TokenSampler:
    """Chooses the next token of each row, with one random generator for each index among all prompts."""

    def __init__(self, sampling: Sampling, rows: Sequence[int], device: torch.device) -> None:
        self._samples = sampling.do_sample
        self._warpers = sampling.warpers()
        penalty = sampling.repetition_penalty
        self._penalty = RepetitionPenaltyLogitsProcessor(float(penalty)) if penalty != 1.0 else None
        self._generators = {
            row: torch.Generator(device).manual_seed(sampling.seed + row) for row in (rows if self._samples else ())
        }

    def __call__(self, scores: Tensor, rows: Sequence[int], texts: Sequence[Sequence[int]]) -> list[int]:
        """Choose a token id for each row.

        Args:
            scores: logits `[batch, vocabulary]`, of at least one row.
            rows: index of each row among all prompts.
            texts: token ids of each row so far, with its prompt and without padding.

        Raises:
            NotFiniteError: logits to sample from are NaN or infinite.
        """
        scores = scores.float()
        if self._penalty is not None:
            seen = [torch.tensor([ids], device=scores.device) for ids in texts]
            scores = torch.cat([self._penalty(ids, scores[at : at + 1]) for at, ids in enumerate(seen)])
        if not self._samples:
            chosen: list[int] = scores.argmax(-1).tolist()
            return chosen
        probabilities = self._warpers(None, scores).softmax(-1)
        if probabilities[:, 0].isnan().any():  # a row is NaN as a whole, and sampling from it would abort on a GPU
            raise NotFiniteError(
                "The model's logits are NaN or infinite, so that no token can be sampled.",
                "If training made them so, branch from an earlier checkpoint with a lower learning rate. Else load the "
                "model in another precision, such as bfloat16 or float32.",
            )
        sampled = [
            torch.multinomial(probabilities[at : at + 1], 1, generator=self._generators[row])
            for at, row in enumerate(rows)
        ]
        return [int(token) for token in torch.cat(sampled)]
