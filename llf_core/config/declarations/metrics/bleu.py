from __future__ import annotations

from llf_core.config.declaration import MetricDeclaration

BLEU = MetricDeclaration(
    name="bleu",
    label="BLEU",
    summary="precision of n-grams of 1 to 4 words over all answers, as sacrebleu computes it",
    paper="Papineni et al. 2002, aclanthology.org/P02-1040",
    implementation="llf_core.metrics.bleu:Bleu",
    unit="points",
)
