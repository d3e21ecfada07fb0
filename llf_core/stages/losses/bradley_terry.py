"""How likely a preference is, given what two answers are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def bradley_terry(margin: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """`-(1 - ε) log σ(m) - ε log σ(-m)`: the negative log-likelihood of a preference.

    Args:
        margin: `[P]`, m: by how much the reward of the chosen answer is larger.
        label_smoothing: ε, share of the labels that are the wrong way round; 0 to 0.5.

    Returns:
        `[P]`.

    Source:
        R. A. Bradley and M. E. Terry, Rank analysis of incomplete block designs, Biometrika 1952.
    """
    from torch.nn.functional import logsigmoid

    cost = -logsigmoid(margin)
    # -log σ(-m) = m - log σ(m)
    return cost + label_smoothing * margin if label_smoothing else cost
