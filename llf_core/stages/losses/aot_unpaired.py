"""AOT for chosen and rejected answers that need not belong together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.stages.losses.bradley_terry import bradley_terry
from llf_core.stages.losses.ranks import matched

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def aot_unpaired(pairs: Pairs, terms: Terms) -> Tensor:
    """`-(1 - ε) log σ(βd) - ε log σ(-βd)` of the i-th smallest log-ratios: `d = (r_w)ᵢ - (r_l)ᵢ`.

    The log-ratios of the chosen answers should be larger than those of the rejected ones as a distribution.

    A cost belongs to a rank and is noted at the pair whose chosen answer has that rank. It depends on which pairs are
    seen together, and so on the size of the micro-batch; a single pair costs what it does in `sigmoid`.

    Args:
        pairs: of policy and reference.
        terms: `beta`, `label_smoothing` ε.

    Returns:
        `[P]`.

    Source:
        AOT, arXiv 2406.05882, unpaired.
    """
    difference = matched(pairs.chosen_ratio, pairs.rejected_ratio)
    return bradley_terry(terms.beta * difference, terms.label_smoothing)
