"""A decode loop of our own: the texts of `model.generate`, with less work around each token.

Import it inside functions: everything here needs torch and transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def settle(model: nn.Module) -> None:
    """Lays a model's weights out for answers: neighbours in one buffer, and narrow copies where they are exact.

    Args:
        model: is only read from, from now on.
    """
    from llf_core.generation.bf16_weights import narrow_weights
    from llf_core.generation.weight_products import join_weights

    join_weights(model)
    narrow_weights(model)
