"""DPO with a hinge loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def hinge(pairs: Pairs, terms: Terms) -> Tensor:
    """Hinge loss `[P]` of the margin, `max(0, 1 - βh)`; 1 where policy and reference are equal.

    SLiC, arXiv 2305.10425, on log-ratios instead of log-probabilities, as in RSO, arXiv 2309.06657.
    """
    return (1.0 - terms.beta * pairs.margin).relu()
