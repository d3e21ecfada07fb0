"""Bradley-Terry model: the probability of a preference given the rewards of two completions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def bradley_terry(margin: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Negative log-likelihood `[P]` under the Bradley-Terry model: `-(1 - ε) log σ(m) - ε log σ(-m)`.

    Bradley and Terry, Biometrika 1952; ε as in E. Mitchell, A note on DPO with noisy preferences, 2023.

    Args:
        margin: `[P]`, m: reward of the chosen completion minus that of the rejected one.
        label_smoothing: ε, share of the labels that are wrong; 0 to 0.5.
    """
    from torch.nn.functional import logsigmoid

    cost = -logsigmoid(margin)
    # -log σ(-m) = m - log σ(m)
    return cost + label_smoothing * margin if label_smoothing else cost
