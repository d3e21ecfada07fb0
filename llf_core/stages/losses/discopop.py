"""DiscoPOP."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def discopop(pairs: Pairs, terms: Terms) -> Tensor:
    """DiscoPOP loss: logistic where the policy prefers the rejected completion, exponential where the chosen one.

    `(1 - σ(βh/τ)) · -log σ(βh) + σ(βh/τ) · exp(-βh)`; `½ (ln 2 + 1)` where policy and reference are equal. It is the
    paper's log-ratio modulated loss, which a language model proposed. The second product is one exponential here, since
    its factors are 0 and infinite for a margin far below zero, which is NaN in TRL.

    Args:
        pairs: log-probabilities of policy and reference, `[P]` each; h is `Pairs.margin`.
        terms: `beta`, `discopop_tau` τ, in (0, 1].

    Returns:
        `[P]`.

    Source:
        DiscoPOP, arXiv 2406.08414, equation 5.
    """
    from torch.nn.functional import logsigmoid

    margin = terms.beta * pairs.margin
    scaled = margin / terms.discopop_tau
    return -(-scaled).sigmoid() * logsigmoid(margin) + (logsigmoid(scaled) - margin).exp()
