"""EXO on pairs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def exo_pair(pairs: Pairs, terms: Terms) -> Tensor:
    """EXO loss `[P]`: reverse KL of the policy's preference from the labelled one (arXiv 2402.00856, eq. 16).

    `q (log q - log(1 - ε)) + (1 - q) (log(1 - q) - log ε)` with `q = σ(βh)`; ValueError if ε is not in (0, 1).
    """
    from torch.nn.functional import logsigmoid

    noise, margin = terms.label_smoothing, terms.beta * pairs.margin
    if not 0.0 < noise < 1.0:
        raise ValueError(
            f"exo_pair takes the logarithm of label_smoothing and of 1 less it, and label_smoothing is {noise}. Set it "
            "between 0 and 0.5, to 0.001 for instance."
        )
    kept, lost = logsigmoid(margin), logsigmoid(-margin)
    return kept.exp() * (kept - math.log1p(-noise)) + lost.exp() * (lost - math.log(noise))
