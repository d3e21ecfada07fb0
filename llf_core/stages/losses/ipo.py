"""IPO."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def ipo(pairs: Pairs, terms: Terms) -> Tensor:
    """IPO loss `[P]`: squared distance of the margin per token from `1/(2β)` (arXiv 2310.12036, eq. 17; β is its τ).

    `(h̄ - 1/(2β))²` with `h̄ = r_w/|y_w| - r_l/|y_l|`; `1/(2β)²` where policy and reference are equal. Log-ratios
    are means over tokens, as in TRL and LLaMA-Factory. The paper's equation has sums; its authors told TRL that
    their results are of means.
    """
    chosen = pairs.chosen_ratio / pairs.chosen_tokens.clamp(min=1)
    rejected = pairs.rejected_ratio / pairs.rejected_tokens.clamp(min=1)
    return (chosen - rejected - 0.5 / terms.beta).square()
