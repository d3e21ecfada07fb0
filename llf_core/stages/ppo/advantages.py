"""Generalized advantage estimation, and whitening."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

EPSILON = 1e-8


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Advantages and returns of completions by generalized advantage estimation (arXiv 1506.02438, eq. 9 and 16).

    `δ_t = r_t + γ V_{t+1} - V_t` and `A_t = δ_t + γ λ A_{t+1}`; nothing follows the last token.

    Args:
        rewards: `[batch, seq]`, reward of each token of a completion; at least one token.
        values: `[batch, seq]`, value of the state before each token: the expected rewards from there on.
        mask: `[batch, seq]`, bool: true where a completion has a token; each row's are its first ones.
        gamma: γ, discount per token, 0 to 1.
        lam: λ, 0 to 1: 0 relies on the value function (less variance), 1 on the rewards (less bias).

    Returns:
        Advantages, and returns (`advantages + values`), the targets of the value function; each `[batch, seq]`, 0
            outside the mask.
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
    """Scale values to a variance of 1, and shift their mean to 0 if `shift_mean`; 0 where no value counts.

    `masked_whiten` of TRL before 1.0: unbiased variance, with 1e-8 added to it. Fewer than two values are not
    scaled.

    Args:
        values: any shape.
        mask: of the same shape, bool: true where a value counts.
        all_reduce: sums a tensor of any shape over all processes.
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
