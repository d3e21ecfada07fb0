"""Generalised advantage estimation, and whitening."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

EPSILON = 1e-8
"""Added to a variance before it divides."""


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns of answers.

    Args:
        rewards: `[batch, seq]`, what each token of an answer earned.
        values: `[batch, seq]`, what was expected of the rest of the answer before the token.
        mask: `[batch, seq]`, true where an answer has a token; each row's are its first ones.
        gamma: discount of a token's wait.
        lam: discount of estimates that look further ahead: 0 trusts the values alone, 1 the rewards alone.

    Returns:
        Advantages, and what the values are to learn (`advantages + values`), each `[batch, seq]`; 0 where no token is.

    Source:
        `δ_t = r_t + gamma V_{t+1} - V_t` and `A_t = δ_t + gamma λ A_{t+1}`, where nothing follows the last token: arXiv
        1506.02438, equations 9 and 16.
    """
    rewards, values = rewards.masked_fill(~mask, 0.0), values.masked_fill(~mask, 0.0)
    advantages = torch.zeros_like(rewards)
    after = next_value = torch.zeros_like(rewards[:, 0])
    for t in range(rewards.shape[1] - 1, -1, -1):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        after = advantages[:, t] = delta + gamma * lam * after
        next_value = values[:, t]
    return advantages.masked_fill(~mask, 0.0), (advantages + values).masked_fill(~mask, 0.0)


def whiten(
    values: Tensor,
    mask: Tensor,
    *,
    shift_mean: bool = True,
    all_reduce: Callable[[Tensor], Tensor] = lambda own: own,
) -> Tensor:
    """Scales values to a variance of 1, and shifts their mean to 0.

    Args:
        values: any shape.
        mask: of the same shape, true where a value counts.
        shift_mean: whether the mean becomes 0, or stays what it is.
        all_reduce: sums a tensor over all processes.

    Returns:
        The same shape and dtype, 0 where no value counts. Fewer than two values have no variance: nothing is scaled.
    """
    kept = values[mask].double() if values.device.type != "mps" else values[mask]
    count, total = all_reduce(torch.stack([kept.new_tensor(len(kept)), kept.sum()]))
    mean = total / count.clamp(min=1)
    spread = all_reduce((kept - mean).square().sum()) / (count - 1).clamp(min=1)
    factor = (spread + EPSILON).rsqrt() if count > 1 else torch.ones_like(spread)
    scaled = (kept - mean) * factor
    whitened = torch.zeros_like(values)
    whitened[mask] = (scaled if shift_mean else scaled + mean).to(values.dtype)
    return whitened
