"""Metrics of SQuAD: exact match and F1 of normalized words."""

from __future__ import annotations

import re
import string
from collections import Counter
from typing import TYPE_CHECKING

from llf_core.metrics.base_metric import Metric
from llf_core.metrics.han_text import HAN, PUNCTUATION, has_han

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.metrics.base_metric import ScoredExample

ARTICLES = re.compile(r"\b(a|an|the)\b")
ASCII = str.maketrans("", "", string.punctuation)
CHINESE = str.maketrans("", "", PUNCTUATION)
EACH_HAN = re.compile(f"([{HAN}])")


class ExactMatch(Metric):
    """1 if an answer equals the reference after SQuAD's normalization (arXiv 1606.05250), else 0."""

    def scores(self, answers: Sequence[str], examples: Sequence[ScoredExample]) -> list[float]:
        """1.0 or 0.0 for each answer."""
        pairs = zip(answers, examples, strict=True)
        return [float(_words(answer) == _words(one.reference or "")) for answer, one in pairs]


class F1(Metric):
    """F measure of the words that an answer and the reference have in common (arXiv 1606.05250)."""

    def scores(self, answers: Sequence[str], examples: Sequence[ScoredExample]) -> list[float]:
        """F measure of each answer, from 0 to 1."""
        pairs = zip(answers, examples, strict=True)
        return [_f1_of_words(_words(answer), _words(one.reference or "")) for answer, one in pairs]


def _f1_of_words(answer: Sequence[str], reference: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of words, each counted as often as it occurs.

    If one has no words: 1 if the other has none either, else 0, as in the script of SQuAD 2.0 (arXiv 1806.03822).
    """
    if not answer or not reference:
        return float(len(answer) == len(reference))
    return 2 * (Counter(answer) & Counter(reference)).total() / (len(answer) + len(reference))


def _words(text: str) -> list[str]:
    """Words in lower case, without punctuation and articles, as in SQuAD's `evaluate-v1.1.py` (arXiv 1606.05250).

    Each Han character is a word and Chinese punctuation is removed, as in the script of CMRC 2018 (arXiv
    1810.07366).
    """
    bare = text.lower().translate(ASCII)
    if has_han(bare):
        bare = EACH_HAN.sub(r" \1 ", bare.translate(CHINESE))
    return ARTICLES.sub(" ", bare).split()
