"""Text generation: a decode loop with the output of `model.generate` and less overhead per token.

`generate` imports torch and transformers when it is called; import the other modules inside functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.generation.generate import end_at, generate

if TYPE_CHECKING:
    from torch import nn

__all__ = ["end_at", "generate", "settle"]


def settle(model: nn.Module) -> None:
    """Prepare a model's weights for generation: joins adjacent matrices, and adds bfloat16 copies where they are exact.

    Args:
        model: must not be trained afterwards.
    """
    from llf_core.generation.bf16_weights import narrow_weights
    from llf_core.generation.weight_products import join_weights

    join_weights(model)
    narrow_weights(model)
