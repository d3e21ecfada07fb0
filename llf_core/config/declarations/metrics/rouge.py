from __future__ import annotations

from llf_core.config.declaration import MetricDeclaration

PAPER = "Lin 2004, aclanthology.org/W04-1013"


def _declare(name: str, label: str, summary: str, implementation: str) -> MetricDeclaration:
    return MetricDeclaration(
        name=name,
        label=label,
        summary=summary,
        paper=PAPER,
        implementation=f"llf_core.metrics.rouge:{implementation}",
        unit="%",
        group="rouge",
    )


ROUGE = (
    _declare("rouge1", "ROUGE-1", "F measure of the words in common with the reference", "Rouge1"),
    _declare("rouge2", "ROUGE-2", "F measure of the pairs of words in common with the reference", "Rouge2"),
    _declare("rougeL", "ROUGE-L", "F measure of the longest common subsequence of words", "RougeL"),
)
