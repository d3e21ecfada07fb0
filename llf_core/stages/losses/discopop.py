"""DiscoPOP."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def discopop(pairs: Pairs, terms: Terms) -> Tensor:
    """`(1 - σ(βh/τ)) · -log σ(βh) + σ(βh/τ) · exp(-βh)`; `½ (ln 2 + 1)` where policy and reference are equal.

    The paper's log-ratio modulated loss, found by a language model: logistic where the policy prefers the rejected
    answer, exponential where it prefers the chosen one. The second product is one exponential here, since its factors
    are 0 and infinite for a margin far below zero, which is NaN in TRL.

    Args:
        pairs: of policy and reference.
        terms: `beta`, `discopop_tau` τ, which is above 0 and below 1.

    Returns:
        `[P]`.

    Source:
        DiscoPOP, arXiv 2406.08414, equation 5.
    """
    from torch.nn.functional import logsigmoid

    margin = terms.beta * pairs.margin
    scaled = margin / terms.discopop_tau
    return -(-scaled).sigmoid() * logsigmoid(margin) + (logsigmoid(scaled) - margin).exp()
