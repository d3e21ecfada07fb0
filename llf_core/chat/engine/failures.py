"""Converts exceptions to failures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.chat.engine.token_choice import NotANumberError
from llf_core.chat.request import RequestError
from llf_core.models.errors import first_line
from llf_core.models.out_of_memory import is_out_of_memory

if TYPE_CHECKING:
    from llf_core.chat.events import FailureKind

OUT_OF_MEMORY = "Out of memory: the keys and values of the conversation do not fit."
WHAT_TO_DO = "Shorten the conversation or max_tokens, send fewer requests at once, or free memory of other programs."


def failure(error: Exception) -> tuple[FailureKind, str, str]:
    """Kind, message and next step of `Failed` for an exception."""
    if isinstance(error, NotANumberError):
        return (
            "engine",
            "The model's logits are not numbers (NaN), so no token can be chosen.",
            "The weights are damaged, or overflow in float16: check the loss of the run, or load them in bfloat16.",
        )
    if isinstance(error, RequestError):
        return "invalid", str(error), ""
    if is_out_of_memory(error):
        return "out_of_memory", OUT_OF_MEMORY, WHAT_TO_DO
    return "engine", f"Generation failed: {first_line(error)}", ""
