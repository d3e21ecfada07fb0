"""KTO on pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def kto_pair(pairs: Pairs, terms: Terms) -> Tensor:
    """KTO loss `[P]` with the KL divergence estimated from the other side of the pairs (arXiv 2402.01306, section 4).

    `½ (1 - σ(β(r_w - z_l))) + ½ (1 - σ(β(z_w - r_l)))` with `z_w = max(0, mean r_w)` and `z_l = max(0, mean r_l)`
    over the P pairs, without a gradient through z; ½ where policy and reference are equal. As in TRL up to 0.8, with
    the mean of its two halves.
    """
    chosen, rejected = pairs.chosen_ratio, pairs.rejected_ratio
    of_chosen, of_rejected = (ratio.detach().mean().clamp(min=0.0) for ratio in (chosen, rejected))
    lost = (terms.beta * (of_rejected - chosen)).sigmoid()
    kept = (terms.beta * (rejected - of_chosen)).sigmoid()
    return 0.5 * (lost + kept)
