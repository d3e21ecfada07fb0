"""The clipped objectives of PPO, token by token: functions of log-probabilities and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Clipped:
    """A loss that is bounded where a model has moved too far from what it was.

    Attributes:
        losses: `[tokens]`, with a graph.
        clipped: `[tokens]`, true where the bound is the loss.
    """

    losses: Tensor
    clipped: Tensor


def policy_losses(log_probs: Tensor, old: Tensor, advantages: Tensor, cliprange: float) -> Clipped:
    """Makes tokens with an advantage likelier, as long as their probability is near what it was.

    Args:
        log_probs: `[tokens]`, of the policy as it is now.
        old: `[tokens]`, of the policy that wrote the answers.
        advantages: `[tokens]`.
        cliprange: ε.

    Source:
        `L = -min(rA, clip(r, 1 - ε, 1 + ε) A)` with `r = π(a) / π_old(a)`: arXiv 1707.06347, equation 7.
    """
    ratio = (log_probs - old).exp()
    free = -advantages * ratio
    bound = -advantages * ratio.clamp(1 - cliprange, 1 + cliprange)
    return Clipped(torch.maximum(free, bound), bound > free)


def value_losses(values: Tensor, old: Tensor, returns: Tensor, cliprange: float) -> Clipped:
    """Half the squared error of values, as long as they are near what they were.

    Args:
        values: `[tokens]`, of the value function as it is now.
        old: `[tokens]`, when the answers were written.
        returns: `[tokens]`, what the values are to learn.
        cliprange: ε.

    Source:
        `L = ½ max((V - R)², (clip(V, V_old - ε, V_old + ε) - R)²)`: equation 9 of arXiv 1707.06347 with the values
        clipped as in the authors' code (github.com/openai/baselines, ppo2).
    """
    near = torch.clamp(values, old - cliprange, old + cliprange)
    free, bound = (values - returns).square(), (near - returns).square()
    return Clipped(0.5 * torch.maximum(free, bound), bound > free)


def approximate_kl(log_probs: Tensor, old: Tensor) -> Tensor:
    """Approximate KL divergence of the policy from the sampling policy, per token (the k3 estimator).

    Args:
        log_probs: `[tokens]`, of the current policy.
        old: `[tokens]`, of the policy that sampled the completions.

    Returns:
        `[tokens]`.

    Source:
        `r - 1 - log r` with `r = π(a) / π_old(a)`, never negative, the expectation over `π_old` is
        `KL(π_old ‖ π)`: http://joschu.net/blog/kl-approx.html, `k3`.
    """
    difference = log_probs - old
    return difference.expm1() - difference


def explained_variance(values: Tensor, returns: Tensor) -> Tensor:
    """`1 - Var(R - V) / Var(R)`: 1 where values foretell the returns, 0 where a constant is as good.

    Args:
        values: `[tokens]`.
        returns: `[tokens]`.

    Returns:
        A scalar; NaN where all returns are the same.
    """
    return 1 - (returns - values).var(correction=0) / returns.var(correction=0)
