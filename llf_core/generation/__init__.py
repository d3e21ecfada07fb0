"""Text generation: a decode loop with the output of `model.generate` and less overhead per token."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.generation.generate import add_end_tokens, generate

if TYPE_CHECKING:
    from torch import nn

__all__ = ["add_end_tokens", "generate", "prepare_weights"]


def prepare_weights(model: nn.Module) -> None:
    """Speed up generation. The model must not be trained afterwards.

    Matrices with the same input are joined. On a CPU, float32 weights get bfloat16 copies where these are exact, and
    products of few rows with bfloat16 weights are reordered.
    """
    from llf_core.generation.weight_products import add_bf16_copies, join_weights, speed_up_few_rows

    join_weights(model)
    add_bf16_copies(model)
    speed_up_few_rows(model)
