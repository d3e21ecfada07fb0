"""APO-down."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def apo_down(pairs: Pairs, terms: Terms) -> Tensor:
    """APO-down loss `[P]`, for chosen completions that are worse than the policy's own (arXiv 2408.06266, eq. 8).

    `σ(β r_w) + 1 - σ(βh)`; 1 where policy and reference are equal. Both completions become less likely, the rejected
    one more so. The constant 1 is TRL's.
    """
    return (terms.beta * pairs.chosen_ratio).sigmoid() + (-terms.beta * pairs.margin).sigmoid()
