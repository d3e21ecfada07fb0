"""SPPO with hard labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def sppo_hard(pairs: Pairs, terms: Terms) -> Tensor:
    """SPPO loss `[P]` with hard labels, as in TRL (arXiv 2405.00675, equation 4.7, with η = 1/β).

    `(r_w - 1/(2β))² + (r_l + 1/(2β))²`; `1/(2β²)` where policy and reference are equal.
    """
    target = 0.5 / terms.beta
    return (pairs.chosen_ratio - target).square() + (pairs.rejected_ratio + target).square()
