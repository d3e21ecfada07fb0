"""BCO on pairs, without a shift."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.stages.losses.bco import bco

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def bco_pair(pairs: Pairs, terms: Terms) -> Tensor:
    """BCO loss of pairs without the reward shift: a classifier that tells chosen from rejected completions.

    `-log σ(β r_w) - log σ(-β r_l)`; `2 ln 2` where policy and reference are equal. The paper shifts both rewards by
    their running mean δ, see `llf_core.stages.losses.bco`; δ is 0 here, as in TRL's loss of this name.

    Args:
        pairs: log-probabilities of policy and reference, `[P]` each; r_w is `Pairs.chosen_ratio`, r_l
            `Pairs.rejected_ratio`.
        terms: `beta`.

    Returns:
        `[P]`.

    Source:
        BCO, arXiv 2404.04656, as TRL's `bco_pair`.
    """
    return bco(pairs, terms, 0.0)
