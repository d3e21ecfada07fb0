"""DiscoPOP."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def discopop(pairs: Pairs, terms: Terms) -> Tensor:
    """DiscoPOP loss `[P]`, the log-ratio modulated loss of arXiv 2406.08414, equation 5.

    `(1 - σ(βh/τ)) · -log σ(βh) + σ(βh/τ) · exp(-βh)` with `discopop_tau` τ in (0, 1]; `½ (ln 2 + 1)` where policy
    and reference are equal. The second product is one exponential here: its factors are 0 and infinite for a margin
    far below zero, which is NaN in TRL.
    """
    from torch.nn.functional import logsigmoid

    margin = terms.beta * pairs.margin
    scaled = margin / terms.discopop_tau
    return -(-scaled).sigmoid() * logsigmoid(margin) + (logsigmoid(scaled) - margin).exp()
