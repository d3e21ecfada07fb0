"""Normalization layers in float32 inside a model in half precision."""

from __future__ import annotations

from llf_core.config.declaration import ModifierDeclaration
from llf_core.config.option import Section, option


class UpcastNormsOptions(Section):
    """Options of the modifier."""

    upcast_layernorm: bool = option(
        False,
        label="Norms in float32",
        help="Keeps and computes the normalization layers in float32 while the rest is in half precision.",
        source="LLaMA-Factory",
    )


UPCAST_NORMS = ModifierDeclaration(
    name="upcast_norms",
    label="normalization layers in float32",
    summary="Norms in float32 inside a model in half precision. For trainings that diverge in it.",
    implementation="llf_core.modifiers.upcast_norms:UpcastNorms",
    options=UpcastNormsOptions,
    switch="upcast_layernorm",
    reads_weights=False,
)
