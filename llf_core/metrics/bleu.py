"""BLEU by sacrebleu."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llf_core.metrics.base_metric import Metric, library
from llf_core.metrics.han_text import has_han
from llf_core.metrics.measure import divided

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from llf_core.config.declaration import MetricDeclaration
    from llf_core.metrics.base_metric import ScoredExample
    from llf_core.metrics.measure import Numbers

ORDER = 4
"""Longest n-gram, in words."""


class Bleu(Metric):
    """BLEU (Papineni et al. 2002), as sacrebleu computes it (Post 2018), from 0 to 100.

    Answers to a reference with Han characters are split by sacrebleu's tokenizer `zh`, others by `13a`. The score of
    one answer is sacrebleu's sentence score (effective order), the value over all is the corpus score.
    """

    def __init__(self, declaration: MetricDeclaration) -> None:
        super().__init__(declaration)
        bleu = library(self, "sacrebleu.metrics", "sacrebleu").BLEU
        self._western, self._chinese = (bleu(effective_order=True, tokenize=name) for name in ("13a", "zh"))

    def _sentence(self, answer: str, example: ScoredExample) -> Any:
        reference = example.reference or ""
        return (self._chinese if has_han(reference) else self._western).sentence_score(answer, [reference])

    def scores(self, answers: Sequence[str], examples: Sequence[ScoredExample]) -> list[float]:
        """Sentence score of each answer, from 0 to 100."""
        return [float(self._sentence(*pair).score) for pair in zip(answers, examples, strict=True)]

    def statistics(
        self,
        answers: Sequence[str],
        examples: Sequence[ScoredExample],
        scores: Sequence[float | None],  # noqa: ARG002 - scores do not add up
    ) -> Numbers:
        """Words of answer and reference, then matched and all n-grams of the answer by length, `[answers, 10]`."""
        found = [self._sentence(*pair) for pair in zip(answers, examples, strict=True)]
        rows = [(one.sys_len, one.ref_len, *one.counts, *one.totals) for one in found]
        return np.array(rows, float).reshape(-1, 2 + 2 * ORDER)

    def total(self, sums: Numbers) -> Numbers:
        """Corpus score with exponential smoothing, sacrebleu's default (Chen and Cherry 2014, method 3).

        Args:
            sums: counts of shape `[…, 10]`.

        Returns:
            Scores of shape `[…]`, from 0 to 100; 0 without an answer.
        """
        answer, reference = sums[..., 0], sums[..., 1]
        matched, every = sums[..., 2 : 2 + ORDER], sums[..., 2 + ORDER :]
        halved = 0.5 ** np.cumsum(matched == 0, axis=-1)  # an n-gram that is never matched counts ½, the next one ¼
        precision = divided(np.where(matched == 0, halved, matched), every, 0.0)
        scored = (matched.sum(-1) > 0) & (precision > 0).all(-1)
        mean = np.exp(np.log(np.where(scored[..., None], precision, 1.0)).mean(-1))
        brevity = np.exp(np.minimum(0.0, 1 - divided(reference, answer, np.inf)))
        return np.where(scored, 100 * brevity * mean, 0.0)
