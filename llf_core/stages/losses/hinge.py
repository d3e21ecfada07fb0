"""DPO with a hinge loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def hinge(pairs: Pairs, terms: Terms) -> Tensor:
    """Hinge loss of the margin, `max(0, 1 - βh)`: pairs that are separated by enough have no gradient.

    It is 1 where policy and reference are equal.

    Args:
        pairs: log-probabilities of policy and reference, `[P]` each; h is `Pairs.margin`.
        terms: `beta`.

    Returns:
        `[P]`.

    Source:
        SLiC, arXiv 2305.10425, on log-ratios instead of log-probabilities, as in RSO, arXiv 2309.06657.
    """
    return (1.0 - terms.beta * pairs.margin).relu()
