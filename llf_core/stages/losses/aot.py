"""AOT, arXiv 2406.05882: the policy is preferred as a distribution, not pair by pair.

A cost belongs to a rank. It depends on which pairs are seen together, and so on the size of the micro-batch; a single
pair costs what it does in `sigmoid`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.stages.losses.bradley_terry import bradley_terry
from llf_core.stages.losses.ranks import matched

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def aot(pairs: Pairs, terms: Terms) -> Tensor:
    """`-(1 - ε) log σ(βd) - ε log σ(-βd)` of the i-th smallest margins: `d = (p_w - p_l)ᵢ - (p_ref,w - p_ref,l)ᵢ`.

    With `p = log π(y|x)`. The policy's margins should be larger than the reference's. A cost is noted at the pair whose
    policy's margin has that rank.

    Args:
        pairs: of policy and reference.
        terms: `beta`, `label_smoothing` ε.

    Returns:
        `[P]`.

    Source:
        AOT, paired.
    """
    return _by_rank(pairs.policy_margin, pairs.reference_margin, terms)


def aot_unpaired(pairs: Pairs, terms: Terms) -> Tensor:
    """The same of the i-th smallest log-ratios, `d = (r_w)ᵢ - (r_l)ᵢ`, of answers that need not belong together.

    The log-ratios of the chosen answers should be larger than those of the rejected ones. A cost is noted at the pair
    whose chosen answer has that rank.

    Args:
        pairs: as in `aot`.
        terms: as in `aot`.

    Returns:
        `[P]`.

    Source:
        AOT, unpaired.
    """
    return _by_rank(pairs.chosen_ratio, pairs.rejected_ratio, terms)


def _by_rank(larger: Tensor, smaller: Tensor, terms: Terms) -> Tensor:
    return bradley_terry(terms.beta * matched(larger, smaller), terms.label_smoothing)
