"""APO-down."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def apo_down(pairs: Pairs, terms: Terms) -> Tensor:
    """APO-down loss, for chosen completions that are worse than the policy's own.

    `σ(β r_w) + 1 - σ(βh)`; 1 where policy and reference are equal. Both completions become less likely, the rejected
    one more so. The paper has no constant 1, which TRL adds.

    Args:
        pairs: log-probabilities of policy and reference, `[P]` each; r_w is `Pairs.chosen_ratio`, h `Pairs.margin`.
        terms: `beta`.

    Returns:
        `[P]`.

    Source:
        APO, arXiv 2408.06266, equation 8.
    """
    return (terms.beta * pairs.chosen_ratio).sigmoid() + (-terms.beta * pairs.margin).sigmoid()
