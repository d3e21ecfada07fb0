"""What is minimised; each stage's own options come with its plug-in."""

from __future__ import annotations

from llf_core.config.option import Section, option


class StageSection(Section):
    """What is minimised."""

    stage: str = option(
        "sft",
        label="Stage",
        help="What the model learns: `sft` learns the answers of conversations.",
        choices_from="stage",
        level="basic",
        source="LLaMA-Factory",
    )
