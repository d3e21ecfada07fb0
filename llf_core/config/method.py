"""Fine-tuning method; its own options come with its plug-in."""

from __future__ import annotations

from llf_core.config.option import Section, option


class MethodSection(Section):
    """Fine-tuning method."""

    finetuning_type: str = option(
        "lora",
        label="Method",
        help="Which parameters are trained: an adapter (`lora`), some layers (`freeze`) or all (`full`).",
        choices_from="method",
        level="basic",
        source="LLaMA-Factory",
    )
