"""IPO."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def ipo(pairs: Pairs, terms: Terms) -> Tensor:
    """IPO loss: squared distance of the margin per token from `1/(2β)`, so that it does not grow without bound.

    `(h̄ - 1/(2β))²` with `h̄ = r_w/|y_w| - r_l/|y_l|`; `1/(2β)²` where policy and reference are equal. Log-ratios are
    means over tokens, as in TRL and LLaMA-Factory. The paper's equation has sums, with which the loss grows with the
    length; its authors told TRL that their results are those of means.

    Args:
        pairs: log-probabilities of policy and reference, `[P]` each; r_w is `Pairs.chosen_ratio`, r_l
            `Pairs.rejected_ratio`.
        terms: `beta`, the paper's τ.

    Returns:
        `[P]`.

    Source:
        IPO, arXiv 2310.12036, equation 17.
    """
    chosen = pairs.chosen_ratio / pairs.chosen_tokens.clamp(min=1)
    rejected = pairs.rejected_ratio / pairs.rejected_tokens.clamp(min=1)
    return (chosen - rejected - 0.5 / terms.beta).square()
