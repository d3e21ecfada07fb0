from __future__ import annotations

from typing import Literal

from llf_core.config.option import Section, option


class Chat(Section):
    """Chat, server and prediction."""

    infer_backend: str = option(
        "huggingface",
        label="Chat engine",
        help="What holds the model in `llf chat`, `llf serve`, `llf predict` and `llf.Chat`.",
        choices_from="chat_engine",
        source="LLaMA-Factory",
    )
    infer_dtype: Literal["auto", "float16", "bfloat16", "float32"] = option(
        "auto",
        choices=("auto", "float16", "bfloat16", "float32"),
        label="Chat precision",
        help="Data type of the weights while chatting. `auto` chooses the fastest one that is safe on the device.",
        source="LLaMA-Factory",
    )
