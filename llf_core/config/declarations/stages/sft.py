"""Supervised fine-tuning."""

from __future__ import annotations

from llf_core.config.declaration import StageDeclaration

SFT = StageDeclaration(
    name="sft",
    label="sft (supervised fine-tuning on responses)",
    implementation="llf_core.stages.sft:SFT",
    data_kind="answers",
)
