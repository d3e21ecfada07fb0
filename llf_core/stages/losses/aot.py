"""AOT, arXiv 2406.05882: aligns the distributions of rewards, not single pairs.

A loss belongs to a rank. It depends on which pairs are in a micro-batch, and so on its size; a single pair has the loss
of `sigmoid`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.stages.losses.bradley_terry import bradley_terry
from llf_core.stages.losses.ranks import rank_differences

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def aot(pairs: Pairs, terms: Terms) -> Tensor:
    """AOT loss of paired preferences: the policy's margins should exceed the reference's as a distribution.

    `-(1 - ε) log σ(βd) - ε log σ(-βd)` with the difference of the i-th smallest margins `d = (p_w - p_l)ᵢ - (p_ref,w -
    p_ref,l)ᵢ` and `p = log π(y|x)`. Each loss is returned at the pair whose policy margin has that rank.

    Args:
        pairs: log-probabilities of policy and reference, `[P]` each.
        terms: `beta`, `label_smoothing` ε.

    Returns:
        `[P]`.

    Source:
        AOT, paired, arXiv 2406.05882, as TRL's `aot`.
    """
    return _by_rank(pairs.policy_margin, pairs.reference_margin, terms)


def aot_unpaired(pairs: Pairs, terms: Terms) -> Tensor:
    """AOT loss of unpaired preferences: the rewards of chosen completions should exceed those of rejected ones.

    The loss of `aot` for the i-th smallest log-ratios, `d = (r_w)ᵢ - (r_l)ᵢ`, of completions that need not belong
    together. Each loss is returned at the pair whose chosen completion has that rank.

    Args:
        pairs: log-probabilities of policy and reference, `[P]` each; r_w is `Pairs.chosen_ratio`, r_l
            `Pairs.rejected_ratio`.
        terms: `beta`, `label_smoothing` ε.

    Returns:
        `[P]`.

    Source:
        AOT, unpaired, arXiv 2406.05882, as TRL's `aot_unpaired` (formerly `aot_pair`).
    """
    return _by_rank(pairs.chosen_ratio, pairs.rejected_ratio, terms)


def _by_rank(larger: Tensor, smaller: Tensor, terms: Terms) -> Tensor:
    return bradley_terry(terms.beta * rank_differences(larger, smaller), terms.label_smoothing)
