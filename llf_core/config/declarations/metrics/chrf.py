from __future__ import annotations

from llf_core.config.declaration import MetricDeclaration

CHRF = MetricDeclaration(
    name="chrf",
    label="chrF",
    summary="F measure of n-grams of 1 to 6 characters over all answers, as sacrebleu computes it",
    paper="Popović 2015, aclanthology.org/W15-3049",
    implementation="llf_core.metrics.chrf:ChrF",
    unit="points",
)
