from __future__ import annotations

from llf_core.config.declaration import StageDeclaration

PT = StageDeclaration(
    name="pt",
    label="pt (pre-training on plain text)",
    implementation="llf_core.stages.pt:PT",
    data_kind="texts",
    token_accuracy=True,
    perplexity=True,
)
