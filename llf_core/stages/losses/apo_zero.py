"""APO-zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def apo_zero(pairs: Pairs, terms: Terms) -> Tensor:
    """APO-zero loss `[P]`, for chosen completions that are better than the policy's own (arXiv 2408.06266, eq. 7).

    `1 - σ(β r_w) + σ(β r_l)`; 1 where policy and reference are equal. The constant 1 is TRL's.
    """
    return (-terms.beta * pairs.chosen_ratio).sigmoid() + (terms.beta * pairs.rejected_ratio).sigmoid()
