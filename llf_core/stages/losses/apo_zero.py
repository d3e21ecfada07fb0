"""APO-zero."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def apo_zero(pairs: Pairs, terms: Terms) -> Tensor:
    """APO-zero loss, for chosen completions that are better than the policy's own.

    `1 - σ(β r_w) + σ(β r_l)`; 1 where policy and reference are equal. Chosen completions become more likely, rejected
    ones less. The paper has no constant 1, which TRL adds.

    Args:
        pairs: log-probabilities of policy and reference, `[P]` each; r_w is `Pairs.chosen_ratio`, r_l
            `Pairs.rejected_ratio`.
        terms: `beta`.

    Returns:
        `[P]`.

    Source:
        APO, arXiv 2408.06266, equation 7.
    """
    return (-terms.beta * pairs.chosen_ratio).sigmoid() + (terms.beta * pairs.rejected_ratio).sigmoid()
