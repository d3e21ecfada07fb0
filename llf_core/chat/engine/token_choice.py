"""Chooses the tokens of replies: each has its own sampling parameters, random generator and grammar."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from llf_core.chat.json_grammar import Grammar
    from llf_core.chat.request import ChatSampling

CANDIDATES = 1024
"""Number of most likely tokens among which nucleus sampling searches before it sorts the whole vocabulary."""
LOWEST_TEMPERATURE = 1e-30
"""Temperatures below it count as this one, since float32 has no smaller divisors."""


class NotANumberError(ArithmeticError):
    """The logits of a reply are NaN."""


class TokenChooser:
    """Chooses the next token of one reply; `is_argmax` if it is always the one with the highest logit.

    Args:
        penalty: repetition penalty, 1 for none.
        prompt: token ids of the prompt, for the repetition penalty.
    """

    def __init__(
        self,
        sampling: ChatSampling,
        penalty: float,
        prompt: Sequence[int],
        device: torch.device,
        grammar: Grammar | None = None,
    ) -> None:
        self._sampling, self._penalty, self._grammar = sampling, penalty, grammar
        self._counts: Counter[int] = Counter()
        self._seen = torch.tensor(sorted(set(prompt)) if penalty != 1.0 else [], dtype=torch.long, device=device)
        bias = sampling.logit_bias
        self._biased = torch.tensor(list(bias), dtype=torch.long, device=device)
        self._bias = torch.tensor(list(bias.values()), dtype=torch.float32, device=device)
        self._adds = sampling.presence_penalty != 0 or sampling.frequency_penalty != 0
        self.is_argmax = (
            sampling.temperature == 0 and penalty == 1.0 and not bias and not self._adds and grammar is None
        )
        self._generator: torch.Generator | None = None
        if sampling.temperature > 0:
            self._generator = torch.Generator(device)
            if sampling.seed is None:
                self._generator.seed()
            else:
                self._generator.manual_seed(sampling.seed % 2**63)

    @property
    def complete(self) -> bool:
        """Whether the grammar allows no further token; false without a grammar."""
        return self._grammar is not None and self._grammar.complete

    def choose(self, logits: Tensor) -> int:
        """Choose the next token from logits `[vocabulary]`.

        Raises:
            NotANumberError: a logit or its bias is NaN.

        Source:
            The order is that of transformers' `generate`: repetition penalty (arXiv 1909.05858, section 4.1),
            temperature, `top_k`, nucleus (arXiv 1904.09751), `min_p` (arXiv 2407.01082). Before the temperature come
            presence and frequency penalty as in OpenAI's API (`logit -= presence * [count > 0] + frequency * count`),
            `logit_bias` and the grammar.
        """
        scores = self._penalized(logits.float())
        highest = scores.max()
        if torch.isnan(highest):
            raise NotANumberError
        if self._generator is None:
            return int(scores.argmax())
        scores = (scores - highest) / max(self._sampling.temperature, LOWEST_TEMPERATURE)
        probabilities, ids = self._candidates(scores)
        drawn = int(torch.multinomial(probabilities, 1, generator=self._generator))
        return drawn if ids is None else int(ids[drawn])

    def accept(self, token: int) -> None:
        """Count a token as part of the reply, for the penalties and the grammar."""
        if self._adds:
            self._counts[token] += 1
        if self._penalty != 1.0:
            self._seen = torch.cat([self._seen, self._seen.new_tensor([token])])
        if self._grammar is not None:
            self._grammar.accept(token)

    def _penalized(self, scores: Tensor) -> Tensor:
        if self.is_argmax:
            return scores
        scores = scores.clone()
        if self._penalty != 1.0:
            found = scores[self._seen]
            scores[self._seen] = torch.where(found < 0, found * self._penalty, found / self._penalty)
        if self._adds and self._counts:
            ids = torch.tensor(list(self._counts), device=scores.device)
            counts = torch.tensor(list(self._counts.values()), dtype=scores.dtype, device=scores.device)
            scores[ids] -= self._sampling.presence_penalty + self._sampling.frequency_penalty * counts
        if len(self._biased):
            scores[self._biased] += self._bias
        if self._grammar is not None:
            self._grammar.mask(scores)
        return scores

    def _candidates(self, scores: Tensor) -> tuple[Tensor, Tensor | None]:
        """Probabilities to sample from, and their token ids; None if they are the whole vocabulary."""
        top_p, top_k, min_p = self._sampling.top_p, self._sampling.top_k, self._sampling.min_p
        size = len(scores)
        ids: Tensor | None = None
        if 0 < top_k < size:
            scores, ids = scores.topk(top_k)
        probabilities = scores.softmax(-1)
        if top_p >= 1 and min_p == 0:
            return probabilities, ids
        if ids is None:
            probabilities, ids = self._most_likely(probabilities, top_p, min_p)
        kept = probabilities.cumsum(0) - probabilities < top_p
        kept &= probabilities >= min_p * probabilities[0]
        kept[0] = True
        return probabilities[kept], ids[kept]

    @staticmethod
    def _most_likely(probabilities: Tensor, top_p: float, min_p: float) -> tuple[Tensor, Tensor]:
        """Tokens in descending order, as many as nucleus and minimum need."""
        if len(probabilities) > CANDIDATES:
            found, ids = probabilities.topk(CANDIDATES)
            if found.sum() >= top_p or found[-1] < min_p * found[0]:
                return found, ids
        found, ids = probabilities.sort(descending=True)
        return found, ids


def choose_tokens(logits: Tensor, choosers: Sequence[TokenChooser]) -> list[int | Exception]:
    """Choose a token for each row of `[batch, vocabulary]`; an exception for a row that failed."""
    found: list[int | Exception] = [0] * len(choosers)
    greedy = [row for row, one in enumerate(choosers) if one.is_argmax]
    if greedy:
        highest, ids = (logits if len(greedy) == len(choosers) else logits[greedy]).max(-1)
        for row, token, broken in zip(greedy, ids.tolist(), highest.isnan().tolist(), strict=True):
            found[row] = NotANumberError() if broken else token
    for row, one in enumerate(choosers):
        if not one.is_argmax:
            try:
                found[row] = one.choose(logits[row])
            except Exception as error:  # noqa: BLE001 - of one row
                found[row] = error
    return found
