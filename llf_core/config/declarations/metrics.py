"""The metrics of generated answers."""

from __future__ import annotations

from llf_core.config.declaration import MetricDeclaration

EXACT_MATCH = MetricDeclaration(
    name="exact_match",
    label="Exact match",
    summary="whether the answer equals the reference, apart from case, punctuation, articles and blanks",
    paper="arXiv 1606.05250",
    implementation="llf_core.metrics.text_overlap:ExactMatch",
    unit="%",
)

F1 = MetricDeclaration(
    name="f1",
    label="F1",
    summary="F measure of the words in common with the reference, apart from case, punctuation and articles",
    paper="arXiv 1606.05250",
    implementation="llf_core.metrics.text_overlap:F1",
    unit="%",
)

BLEU = MetricDeclaration(
    name="bleu",
    label="BLEU",
    summary="precision of n-grams of 1 to 4 words over all answers, as sacrebleu computes it",
    paper="Papineni et al. 2002, aclanthology.org/P02-1040",
    implementation="llf_core.metrics.text_overlap:Bleu",
    unit="points",
)

CHRF = MetricDeclaration(
    name="chrf",
    label="chrF",
    summary="F measure of n-grams of 1 to 6 characters over all answers, as sacrebleu computes it",
    paper="Popović 2015, aclanthology.org/W15-3049",
    implementation="llf_core.metrics.text_overlap:ChrF",
    unit="points",
)
PAPER = "Lin 2004, aclanthology.org/W04-1013"


def _declare(name: str, label: str, summary: str, implementation: str) -> MetricDeclaration:
    return MetricDeclaration(
        name=name,
        label=label,
        summary=summary,
        paper=PAPER,
        implementation=f"llf_core.metrics.text_overlap:{implementation}",
        unit="%",
        group="rouge",
    )


ROUGE = (
    _declare("rouge1", "ROUGE-1", "F measure of the words in common with the reference", "Rouge1"),
    _declare("rouge2", "ROUGE-2", "F measure of the pairs of words in common with the reference", "Rouge2"),
    _declare("rougeL", "ROUGE-L", "F measure of the longest common subsequence of words", "RougeL"),
)
