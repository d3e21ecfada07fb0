"""Completions of a model: a decode loop of our own with the texts of `model.generate` and less work around each token.

`generate` imports torch and transformers when it is called; import the other modules inside functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.generation.generate import end_at, generate

if TYPE_CHECKING:
    from torch import nn

__all__ = ["end_at", "generate", "settle"]


def settle(model: nn.Module) -> None:
    """Lays a model's weights out for answers: neighbours in one buffer, and narrow copies where they are exact.

    Args:
        model: is only read from, from now on.
    """
    from llf_core.generation.bf16_weights import narrow_weights
    from llf_core.generation.weight_products import join_weights

    join_weights(model)
    narrow_weights(model)
