"""IPO."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def ipo(pairs: Pairs, terms: Terms) -> Tensor:
    """`(h̄ - 1/(2β))²`; `1/(2β)²` where policy and reference are equal.

    `h̄ = r_w/|y_w| - r_l/|y_l|`: log-ratios per token, as TRL and LLaMA-Factory mean it. The paper's equation has sums,
    with which the loss grows with the length; TRL has it from the authors that their results are of the means.

    Args:
        pairs: of policy and reference.
        terms: `beta`, the paper's τ.

    Returns:
        `[P]`.

    Source:
        IPO, arXiv 2310.12036, equation 17.
    """
    chosen = pairs.chosen_ratio / pairs.chosen_tokens.clamp(min=1)
    rejected = pairs.rejected_ratio / pairs.rejected_tokens.clamp(min=1)
    return (chosen - rejected - 0.5 / terms.beta).square()
