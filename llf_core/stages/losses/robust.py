"""Robust DPO."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def robust(pairs: Pairs, terms: Terms) -> Tensor:
    """Robust DPO loss: an unbiased estimate of DPO's loss where a share ε of the labels is wrong.

    `(-(1 - ε) log σ(βh) + ε log σ(-βh)) / (1 - 2ε)`; `ln 2` where policy and reference are equal. It may be negative.

    Args:
        pairs: log-probabilities of policy and reference, `[P]` each; h is `Pairs.margin`.
        terms: `beta`, `label_smoothing` ε.

    Returns:
        `[P]`.

    Raises:
        ValueError: ε is not in [0, 0.5), or there are no reference log-probabilities.

    Source:
        Robust DPO, arXiv 2403.00409, as TRL's `robust`.
    """
    from torch.nn.functional import logsigmoid

    noise, margin = terms.label_smoothing, terms.beta * pairs.margin
    if not 0.0 <= noise < 0.5:  # noqa: PLR2004 - half of the labels wrong says nothing
        raise ValueError(f"robust takes a share of wrong labels from 0 to below 0.5, and label_smoothing is {noise}.")
    # log σ(-m) = log σ(m) - m
    return -logsigmoid(margin) - noise / (1.0 - 2.0 * noise) * margin
