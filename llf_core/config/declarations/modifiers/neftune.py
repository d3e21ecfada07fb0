"""NEFTune: noise on the embeddings during training (arXiv 2310.05914)."""

from __future__ import annotations

from llf_core.config.declaration import ModifierDeclaration
from llf_core.config.option import Section, option


class NEFTuneOptions(Section):
    """Options of NEFTune."""

    neftune_noise_alpha: float | None = option(
        None,
        unset="none",
        label="NEFTune noise",
        help="Noise scale α on the embeddings during training (NEFTune, arXiv 2310.05914). Typical: 5.",
        above=0,
        source="Hugging Face",
    )


NEFTUNE = ModifierDeclaration(
    name="neftune",
    label="NEFTune (noise on the embeddings)",
    summary="Noise while training. Often better answers of small chat data sets.",
    paper="arXiv 2310.05914",
    implementation="llf_core.modifiers.neftune:NEFTune",
    options=NEFTuneOptions,
    switch="neftune_noise_alpha",
    reads_weights=False,
)
