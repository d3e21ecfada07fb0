"""ROUGE by rouge-score: F measures without stemming."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, ClassVar

from llf_core.metrics.base_metric import Metric, library
from llf_core.metrics.han_text import HAN, can_segment, has_han, segment

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.config.declaration import MetricDeclaration
    from llf_core.metrics.base_metric import ScoredExample

PARTS = re.compile(rf"(?P<han>[{HAN}]+)|(?P<word>[^\W\u0000-\u024f{HAN}]+)|(?P<latin>[\u0000-\u024f]+)")
"""Runs of Chinese, words of other scripts, and the rest for rouge-score, which drops all letters but a to z."""
NO_JIEBA = "ROUGE split Chinese text into characters, since jieba is not installed. For words, run: pip install jieba"


class Rouge(Metric):
    """ROUGE of one kind (Lin, ROUGE: a package for automatic evaluation of summaries, 2004).

    Latin text is split by rouge-score's own tokenizer; Chinese into words by jieba; other scripts at spaces and
    punctuation.
    """

    kind: ClassVar[str]

    def __init__(self, declaration: MetricDeclaration) -> None:
        super().__init__(declaration)
        self._split = library(self, "rouge_score.tokenize", "rouge-score").tokenize
        self._scorer = library(self, "rouge_score.rouge_scorer", "rouge-score").RougeScorer([self.kind], tokenizer=self)

    def tokenize(self, text: str) -> list[str]:
        """Split a text into words; rouge-score calls this."""
        found: list[str] = []
        for part in PARTS.finditer(text.lower()):
            if part["latin"]:
                found += self._split(part["latin"], None)
            else:
                found += segment(part["han"]) if part["han"] else [part["word"]]
        return found

    def scores(self, answers: Sequence[str], examples: Sequence[ScoredExample]) -> list[float]:
        """F measure of each answer, from 0 to 1. `notes` says if Chinese was split into characters without jieba."""
        pairs = [(one.reference or "", answer) for answer, one in zip(answers, examples, strict=True)]
        if NO_JIEBA not in self.notes and not can_segment() and any(has_han(text) for pair in pairs for text in pair):
            self.notes.append(NO_JIEBA)
        return [float(self._scorer.score(*pair)[self.kind].fmeasure) for pair in pairs]


class Rouge1(Rouge):
    """ROUGE-1: words."""

    kind = "rouge1"


class Rouge2(Rouge):
    """ROUGE-2: pairs of words."""

    kind = "rouge2"


class RougeL(Rouge):
    """ROUGE-L: the longest common subsequence of words."""

    kind = "rougeL"
