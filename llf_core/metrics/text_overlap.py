"""BLEU (by sacrebleu), chrF (equal to sacrebleu's), ROUGE (by rouge-score), exact match and F1 of SQuAD."""

from __future__ import annotations

import functools
import re
import string
from collections import Counter
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from llf_core.metrics.base_metric import Metric, divided, library

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.config.declaration import MetricDeclaration
    from llf_core.metrics.base_metric import Numbers, ScoredExample


BLEU_ORDER = 4
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
        return np.array(rows, float).reshape(-1, 2 + 2 * BLEU_ORDER)

    def total(self, sums: Numbers) -> Numbers:
        """Corpus score with exponential smoothing, sacrebleu's default (Chen and Cherry 2014, method 3).

        Args:
            sums: counts of shape `[…, 10]`.

        Returns:
            Scores of shape `[…]`, from 0 to 100; 0 without an answer.
        """
        answer, reference = sums[..., 0], sums[..., 1]
        matched, every = sums[..., 2 : 2 + BLEU_ORDER], sums[..., 2 + BLEU_ORDER :]
        halved = 0.5 ** np.cumsum(matched == 0, axis=-1)  # an n-gram that is never matched counts ½, the next one ¼
        precision = divided(np.where(matched == 0, halved, matched), every, 0.0)
        scored = (matched.sum(-1) > 0) & (precision > 0).all(-1)
        mean = np.exp(np.log(np.where(scored[..., None], precision, 1.0)).mean(-1))
        brevity = np.exp(np.minimum(0.0, 1 - divided(reference, answer, np.inf)))
        return np.where(scored, 100 * brevity * mean, 0.0)


CHRF_ORDER = 6
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
                    self._ngrams(answer, CHRF_ORDER), self._ngrams(one.reference or "", CHRF_ORDER), strict=True
                )
                for number in (ours.total() if theirs else 0, theirs.total(), (ours & theirs).total())
            ]
            for answer, one in zip(answers, examples, strict=True)
        ]
        return np.array(rows, float).reshape(-1, 3 * CHRF_ORDER)

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


HAN = r"\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Content of a character class: unified and compatibility ideographs, the iteration mark and the zero."""

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


_HAN = re.compile(f"[{HAN}]")


class Rouge1(Rouge):
    """ROUGE-1: words."""

    kind = "rouge1"


class Rouge2(Rouge):
    """ROUGE-2: pairs of words."""

    kind = "rouge2"


class RougeL(Rouge):
    """ROUGE-L: the longest common subsequence of words."""

    kind = "rougeL"


ARTICLES = re.compile(r"\b(a|an|the)\b")
ASCII = str.maketrans("", "", string.punctuation)

PUNCTUATION = "，。：？！“”；’《》…·、「」（）－～『』"  # noqa: RUF001 - full width
"""Chinese punctuation that the evaluation script of CMRC 2018 (arXiv 1810.07366) removes."""
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


def has_han(text: str) -> bool:
    """Whether a text has a Han character."""
    return _HAN.search(text) is not None


def can_segment() -> bool:
    """Whether jieba, which splits Chinese into words, is installed."""
    return find_spec("jieba") is not None


def segment(text: str) -> list[str]:
    """Split Chinese into words by jieba (the first call reads its dictionary) if installed, else into characters."""
    return [str(word) for word in _jieba().lcut(text)] if can_segment() else list(text)


@functools.cache
def _jieba() -> Any:
    """A tokenizer of jieba that reads no cache from the folder of temporary files, where others may write."""
    import logging

    import jieba

    jieba.setLogLevel(logging.WARNING)
    tokenizer = jieba.Tokenizer()
    tokenizer.FREQ, tokenizer.total = tokenizer.gen_pfdict(tokenizer.get_dict_file())
    tokenizer.initialized = True
    return tokenizer
