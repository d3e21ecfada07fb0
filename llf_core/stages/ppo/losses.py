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
    """Clipped loss per token.

    Attributes:
        losses: `[tokens]`, with a graph.
        clipped: `[tokens]`, bool: true where the clipped term is the loss.
    """

    losses: Tensor
    clipped: Tensor


def policy_losses(log_probs: Tensor, old: Tensor, advantages: Tensor, cliprange: float) -> Clipped:
    """Clipped policy loss per token, `[tokens]` each (arXiv 1707.06347, equation 7).

    `L = -min(rA, clip(r, 1 - ε, 1 + ε) A)` with `r = π(a) / π_old(a)`; `old` are log-probabilities at sampling.
    """
    ratio = (log_probs - old).exp()
    free = -advantages * ratio
    bound = -advantages * ratio.clamp(1 - cliprange, 1 + cliprange)
    return Clipped(torch.maximum(free, bound), bound > free)


def value_losses(values: Tensor, old: Tensor, returns: Tensor, cliprange: float) -> Clipped:
    """Clipped value loss per token, `[tokens]` each: half the squared error, within a clip range around the old values.

    `L = ½ max((V - R)², (clip(V, V_old - ε, V_old + ε) - R)²)`: arXiv 1707.06347, equation 9, with the values
    clipped as in the authors' code (github.com/openai/baselines, ppo2).
    """
    near = torch.clamp(values, old - cliprange, old + cliprange)
    free, bound = (values - returns).square(), (near - returns).square()
    return Clipped(0.5 * torch.maximum(free, bound), bound > free)


def approximate_kl(log_probs: Tensor, old: Tensor) -> Tensor:
    """Estimate of the KL divergence from the policy that sampled the completions, per token `[tokens]`, in nats.

    `r - 1 - log r` with `r = π(a) / π_old(a)`: never negative, and its expectation over `π_old` is `KL(π_old ‖ π)`:
    estimator `k3` of J. Schulman, Approximating KL divergence, http://joschu.net/blog/kl-approx.html.
    """
    difference = log_probs - old
    return difference.expm1() - difference


def explained_variance(
    values: Tensor, returns: Tensor, all_reduce: Callable[[Tensor], Tensor] = lambda own: own
) -> Tensor:
    """Share of the variance of the returns `[tokens]` that the values `[tokens]` explain, `1 - Var(R - V) / Var(R)`.

    1 for a perfect value function, 0 for one that is no better than a constant, negative for a worse one; a float64
    scalar, NaN or infinite if all returns are the same. As in OpenAI's baselines (github.com/openai/baselines,
    common/math_util.py).
    """

    def squares(own: Tensor) -> Tensor:
        own = own.double()
        total, count = all_reduce(torch.stack([own.sum(), own.new_tensor(len(own))]))
        return all_reduce((own - total / count).square().sum())

    return 1 - squares(returns - values) / squares(returns)
