"""AOT for pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.stages.losses.bradley_terry import bradley_terry
from llf_core.stages.losses.ranks import matched

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def aot(pairs: Pairs, terms: Terms) -> Tensor:
    """`-(1 - ε) log σ(βd) - ε log σ(-βd)` of the i-th smallest margins: `d = (p_w - p_l)ᵢ - (p_ref,w - p_ref,l)ᵢ`.

    With `p = log π(y|x)`. The policy's margins should be larger than the reference's as a distribution, not pair by
    pair.

    A cost belongs to a rank and is noted at the pair whose policy's margin has that rank. It depends on which pairs are
    seen together, and so on the size of the micro-batch; a single pair costs what it does in `sigmoid`.

    Args:
        pairs: of policy and reference.
        terms: `beta`, `label_smoothing` ε.

    Returns:
        `[P]`.

    Source:
        AOT, arXiv 2406.05882, paired.
    """
    difference = matched(pairs.policy_margin, pairs.reference_margin)
    return bradley_terry(terms.beta * difference, terms.label_smoothing)
