"""BCO on pairs, without a shift."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.stages.losses.bco import bco

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def bco_pair(pairs: Pairs, terms: Terms) -> Tensor:
    """BCO loss `[P]` without the reward shift (arXiv 2404.04656; TRL's `bco_pair`).

    `-log σ(β r_w) - log σ(-β r_l)`; `2 ln 2` where policy and reference are equal.
    """
    return bco(pairs, terms, 0.0)
