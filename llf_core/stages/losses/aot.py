"""AOT, arXiv 2406.05882: aligns the distributions of rewards, not single pairs.

The loss depends on which pairs are in a micro-batch, and so on its size; a single pair has the loss of `sigmoid`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.stages.losses.bradley_terry import bradley_terry
from llf_core.stages.losses.ranks import rank_differences

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def aot(pairs: Pairs, terms: Terms) -> Tensor:
    """AOT loss `[P]` of paired preferences (TRL's `aot`): margins should exceed the reference's.

    `-(1 - ε) log σ(βd) - ε log σ(-βd)` with the difference of the i-th smallest margins `d = (p_w - p_l)ᵢ - (p_ref,w
    - p_ref,l)ᵢ` and `p = log π(y|x)`. Each loss is returned at the pair whose policy margin has that rank.
    """
    return _by_rank(pairs.policy_margin, pairs.reference_margin, terms)


def aot_unpaired(pairs: Pairs, terms: Terms) -> Tensor:
    """AOT loss `[P]` of unpaired preferences (TRL's `aot_unpaired`): chosen rewards should exceed rejected ones.

    The loss of `aot` for the i-th smallest log-ratios, `d = (r_w)ᵢ - (r_l)ᵢ`. Each loss is returned at the pair
    whose chosen completion has that rank.
    """
    return _by_rank(pairs.chosen_ratio, pairs.rejected_ratio, terms)


def _by_rank(larger: Tensor, smaller: Tensor, terms: Terms) -> Tensor:
    return bradley_terry(terms.beta * rank_differences(larger, smaller), terms.label_smoothing)
