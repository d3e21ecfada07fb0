"""SPPO with hard labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def sppo_hard(pairs: Pairs, terms: Terms) -> Tensor:
    """SPPO loss with hard labels: moves each log-ratio towards the constant that its probability of winning implies.

    `(r_w - 1/(2β))² + (r_l + 1/(2β))²`; `1/(2β²)` where policy and reference are equal. The paper's η is 1/β here, and
    its estimated probability of winning is 1 for the chosen completion, 0 for the rejected one, as in TRL.

    Args:
        pairs: log-probabilities of policy and reference, `[P]` each; r_w is `Pairs.chosen_ratio`, r_l
            `Pairs.rejected_ratio`.
        terms: `beta`.

    Returns:
        `[P]`.

    Source:
        SPPO, arXiv 2405.00675, equation 4.7.
    """
    target = 0.5 / terms.beta
    return (pairs.chosen_ratio - target).square() + (pairs.rejected_ratio + target).square()
