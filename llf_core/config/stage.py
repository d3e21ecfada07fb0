"""What is minimised; each stage's own options come with its plug-in."""

from __future__ import annotations

from typing import Literal

from llf_core.config.option import Names, Section, option

COMPARED = ("dpo", "kto")
"""Stages that compare answers with what a reference makes of them."""
REFERENCE = ("ref_model", "ref_model_adapters", "ref_model_quantization_bit")
"""Keys that name another reference than the model before its first step."""


class StageSection(Section):
    """What is minimised."""

    stage: str = option(
        "sft",
        label="Stage",
        help="What the model learns: the answers of conversations (`sft`), or which of two is better (`dpo`), ….",
        choices_from="stage",
        level="basic",
        source="LLaMA-Factory",
    )
    pref_beta: float = option(
        0.1,
        label="Beta",
        help="How firmly the reference is held on to: smaller lets the model go further from it.",
        above=0,
        level="basic",
        source="LLaMA-Factory",
        stages=COMPARED,
    )
    pref_ftx: float = option(
        0.0,
        label="Share of the SFT loss",
        help="Adds the loss of the better answers, as a mean over their tokens, times this.",
        minimum=0,
        source="LLaMA-Factory",
        stages=COMPARED,
    )
    ref_model: str | None = option(
        None,
        label="Reference model",
        help="What the model is compared with; unset, itself as it is before the first step.",
        source="LLaMA-Factory",
        path="model",
        stages=COMPARED,
    )
    ref_model_adapters: Names | None = option(
        None,
        label="Adapters of the reference",
        help="Adapters that are merged into the reference model.",
        source="LLaMA-Factory",
        path="adapters",
        stages=COMPARED,
    )
    ref_model_quantization_bit: Literal[4, 8] | None = option(
        None,
        label="Bits of the reference",
        help="Loads the reference model quantized, to 4 or 8 bits a weight.",
        choices=(4, 8),
        source="LLaMA-Factory",
        stages=COMPARED,
    )
    precompute_ref_log_probs: bool | None = option(
        None,
        label="Ask the reference once",
        help="Computes what the reference makes of each example before the training; unset, where it is no more work.",
        source="Hugging Face",
        stages=COMPARED,
    )
