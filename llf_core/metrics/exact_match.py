"""Exact match of SQuAD."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.metrics.base_metric import Metric
from llf_core.metrics.squad_words import squad_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.metrics.base_metric import ScoredExample


class ExactMatch(Metric):
    """1 if an answer equals the reference after SQuAD's normalization (arXiv 1606.05250), else 0."""

    def scores(self, answers: Sequence[str], examples: Sequence[ScoredExample]) -> list[float]:
        """1.0 or 0.0 for each answer."""
        pairs = zip(answers, examples, strict=True)
        return [float(squad_words(answer) == squad_words(one.reference or "")) for answer, one in pairs]
