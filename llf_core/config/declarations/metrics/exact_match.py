from __future__ import annotations

from llf_core.config.declaration import MetricDeclaration

EXACT_MATCH = MetricDeclaration(
    name="exact_match",
    label="Exact match",
    summary="whether the answer equals the reference, apart from case, punctuation, articles and blanks",
    paper="arXiv 1606.05250",
    implementation="llf_core.metrics.squad:ExactMatch",
    unit="%",
)
