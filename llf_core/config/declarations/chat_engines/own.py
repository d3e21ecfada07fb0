"""LLF's own engine, for every device."""

from __future__ import annotations

from llf_core.config.declaration import ChatEngineDeclaration

OWN = ChatEngineDeclaration(
    name="huggingface",
    label="LLF's engine",
    summary="any device, any adapter of PEFT, several adapters on one set of weights",
    implementation="llf_core.chat.engine_process:EngineProcess",
)
