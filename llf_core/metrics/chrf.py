"""chrF, equal to sacrebleu's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llf_core.metrics.base_metric import Metric, library
from llf_core.metrics.measure import divided

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.config.declaration import MetricDeclaration
    from llf_core.metrics.base_metric import ScoredExample
    from llf_core.metrics.measure import Numbers

ORDER = 6
"""Longest n-gram, in characters."""
BETA = 2
"""Recall counts β times as much as precision."""


class ChrF(Metric):
    """chrF2 (Popović 2015), as sacrebleu computes it by default, from 0 to 100.

    The score of one answer is sacrebleu's sentence score, the value over all is the corpus score.
    """

    def __init__(self, declaration: MetricDeclaration) -> None:
        super().__init__(declaration)
        self._ngrams = library(self, "sacrebleu.metrics.helpers", "sacrebleu").extract_all_char_ngrams

    def scores(self, answers: Sequence[str], examples: Sequence[ScoredExample]) -> list[float]:
        """Sentence score of each answer, from 0 to 100."""
        return [float(one) for one in self.total(self.statistics(answers, examples, ()))]

    def statistics(
        self,
        answers: Sequence[str],
        examples: Sequence[ScoredExample],
        scores: Sequence[float | None],  # noqa: ARG002 - scores do not add up
    ) -> Numbers:
        """For each length, n-grams of the answer, of the reference, and common ones, of shape `[answers, 18]`.

        Those of the answer are 0 where the reference is shorter than the n-gram.
        """
        rows = [
            [
                number
                for ours, theirs in zip(
                    self._ngrams(answer, ORDER), self._ngrams(one.reference or "", ORDER), strict=True
                )
                for number in (ours.total() if theirs else 0, theirs.total(), (ours & theirs).total())
            ]
            for answer, one in zip(answers, examples, strict=True)
        ]
        return np.array(rows, float).reshape(-1, 3 * ORDER)

    def total(self, sums: Numbers) -> Numbers:
        """F measure of the mean precision and the mean recall over the lengths that both texts have, 0 to 100.

        Counts `[…, 18]` to scores `[…]`; 0 without an answer. Popović, chrF: character n-gram F-score for automatic
        MT evaluation, 2015; sacrebleu's `CHRF`.
        """
        answer, reference, common = (sums[..., place::3] for place in range(3))
        used = (answer > 0) & (reference > 0)
        orders = used.sum(-1)
        precision = divided((divided(common, answer, 0.0) * used).sum(-1), orders, 0.0)
        recall = divided((divided(common, reference, 0.0) * used).sum(-1), orders, 0.0)
        return 100 * divided((1 + BETA**2) * precision * recall, BETA**2 * precision + recall, 0.0)
