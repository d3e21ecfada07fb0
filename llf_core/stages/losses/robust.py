"""Robust DPO."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from llf_core.stages.losses.pairs import Pairs, Terms


def robust(pairs: Pairs, terms: Terms) -> Tensor:
    """Robust DPO loss `[P]`: an unbiased estimate of DPO's loss if a share ε of the labels is wrong (arXiv 2403.00409).

    `(-(1 - ε) log σ(βh) + ε log σ(-βh)) / (1 - 2ε)`; `ln 2` where policy and reference are equal. It may be
    negative. ValueError if ε is not in [0, 0.5).
    """
    from torch.nn.functional import logsigmoid

    noise, margin = terms.label_smoothing, terms.beta * pairs.margin
    if not 0.0 <= noise < 0.5:  # noqa: PLR2004 - half of the labels wrong says nothing
        raise ValueError(f"robust takes a share of wrong labels from 0 to below 0.5, and label_smoothing is {noise}.")
    # log σ(-m) = log σ(m) - m
    return -logsigmoid(margin) - noise / (1.0 - 2.0 * noise) * margin
