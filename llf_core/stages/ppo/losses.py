"""Clipped losses of PPO per token: functions of log-probabilities and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


@dataclass(frozen=True)
class Clipped:
    """A loss per token whose gradient is cut off where the model has moved too far from the one that sampled.

    Attributes:
        losses: `[tokens]`, with a graph.
        clipped: `[tokens]`, bool: true where the clipped term is the loss.
    """

    losses: Tensor
    clipped: Tensor


def policy_losses(log_probs: Tensor, old: Tensor, advantages: Tensor, cliprange: float) -> Clipped:
    """Clipped policy loss per token: raises the probability of tokens with an advantage, within a clip range.

    `L = -min(rA, clip(r, 1 - ε, 1 + ε) A)` with `r = π(a) / π_old(a)`. The clip keeps several steps on the same
    completions near the policy that sampled them, for which alone the advantages hold.

    Args:
        log_probs: `[tokens]`, of the policy as it is now.
        old: `[tokens]`, of the policy that sampled the completions.
        advantages: `[tokens]`.

    Returns:
        The losses, and where they are clipped, `[tokens]` each.

    Source:
        arXiv 1707.06347, equation 7.
    """
    ratio = (log_probs - old).exp()
    free = -advantages * ratio
    bound = -advantages * ratio.clamp(1 - cliprange, 1 + cliprange)
    return Clipped(torch.maximum(free, bound), bound > free)


def value_losses(values: Tensor, old: Tensor, returns: Tensor, cliprange: float) -> Clipped:
    """Clipped value loss per token: half the squared error, within a clip range around the old values.

    `L = ½ max((V - R)², (clip(V, V_old - ε, V_old + ε) - R)²)`, so that one phase moves the value function only so far.

    Args:
        values: `[tokens]`, of the value function as it is now.
        old: `[tokens]`, when the completions were sampled.
        returns: `[tokens]`, targets of the values.

    Returns:
        The losses, and where they are clipped, `[tokens]` each.

    Source:
        Equation 9 of arXiv 1707.06347, with the values clipped as in the authors' code (github.com/openai/baselines,
        ppo2).
    """
    near = torch.clamp(values, old - cliprange, old + cliprange)
    free, bound = (values - returns).square(), (near - returns).square()
    return Clipped(0.5 * torch.maximum(free, bound), bound > free)


def approximate_kl(log_probs: Tensor, old: Tensor) -> Tensor:
    """Estimate per token how far the policy has moved from the one that sampled the completions, to be logged.

    `r - 1 - log r` with `r = π(a) / π_old(a)`: never negative, and its expectation over `π_old` is `KL(π_old ‖ π)`.

    Args:
        log_probs: `[tokens]`, of the current policy.
        old: `[tokens]`, of the policy that sampled the completions.

    Returns:
        `[tokens]`, in nats.

    Source:
        J. Schulman, Approximating KL divergence, http://joschu.net/blog/kl-approx.html, estimator `k3`.
    """
    difference = log_probs - old
    return difference.expm1() - difference


def explained_variance(
    values: Tensor, returns: Tensor, all_reduce: Callable[[Tensor], Tensor] = lambda own: own
) -> Tensor:
    """Share of the variance of the returns that the values explain, `1 - Var(R - V) / Var(R)`, to be logged.

    1 for a perfect value function, 0 for one that is no better than a constant, negative for a worse one.

    Args:
        values: `[tokens]`.
        returns: `[tokens]`.
        all_reduce: sums a tensor of any shape over all processes; what it raises passes through.

    Returns:
        A scalar, float64; NaN or infinite where all returns are the same.

    Source:
        `explained_variance` of OpenAI's baselines (github.com/openai/baselines, common/math_util.py).
    """

    def squares(own: Tensor) -> Tensor:
        own = own.double()
        total, count = all_reduce(torch.stack([own.sum(), own.new_tensor(len(own))]))
        return all_reduce((own - total / count).square().sum())

    return 1 - squares(returns - values) / squares(returns)
