"""F1 of SQuAD."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from llf_core.metrics.base_metric import Metric
from llf_core.metrics.squad_words import squad_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.metrics.base_metric import ScoredExample


class F1(Metric):
    """F measure of the words that an answer and the reference have in common (arXiv 1606.05250)."""

    def scores(self, answers: Sequence[str], examples: Sequence[ScoredExample]) -> list[float]:
        """F measure of each answer, from 0 to 1."""
        pairs = zip(answers, examples, strict=True)
        return [_f1_of_words(squad_words(answer), squad_words(one.reference or "")) for answer, one in pairs]


def _f1_of_words(answer: Sequence[str], reference: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of words, each counted as often as it occurs.

    If one has no words: 1 if the other has none either, else 0, as in the script of SQuAD 2.0 (arXiv 1806.03822).
    """
    if not answer or not reference:
        return float(len(answer) == len(reference))
    return 2 * (Counter(answer) & Counter(reference)).total() / (len(answer) + len(reference))
