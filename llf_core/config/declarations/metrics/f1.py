from __future__ import annotations

from llf_core.config.declaration import MetricDeclaration

F1 = MetricDeclaration(
    name="f1",
    label="F1",
    summary="F measure of the words in common with the reference, apart from case, punctuation and articles",
    paper="arXiv 1606.05250",
    implementation="llf_core.metrics.squad:F1",
    unit="%",
)
