"""Rewards of tokens from the scores of completions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def token_rewards(log_probs: Tensor, reference: Tensor, mask: Tensor, scores: Tensor, beta: float) -> Tensor:
    """Rewards of tokens `[batch, seq]`: a KL penalty for each, and the completion's score at its last token.

    `r_t = -β (log π(a_t) - log π_ref(a_t))`: arXiv 1909.08593, equation 2, its KL penalty spread over the tokens.

    Args:
        log_probs, reference: `[batch, seq]`, of the policy that sampled the completions and of the reference.
        mask: `[batch, seq]`, bool: true where a completion has a token; each row's are its first ones, at least one.
        scores: `[batch]`.
    """
    rewards = (-beta * (log_probs - reference)).masked_fill(~mask, 0.0)
    last = mask.sum(1, keepdim=True) - 1
    return rewards.scatter_add(1, last, scores[:, None].to(rewards.dtype))


def answer_kl(log_probs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """KL divergence from the reference per completion `[batch]`, in nats: `Σ_t log π(a_t) - log π_ref(a_t)`.

    Estimator `k1` of J. Schulman, Approximating KL divergence, http://joschu.net/blog/kl-approx.html.
    """
    return (log_probs - reference).masked_fill(~mask, 0.0).sum(1)


@dataclass
class RunningMoments:
    """Mean of all scores so far, and sum of their squared distances from it."""

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    @property
    def deviation(self) -> float:
        """Unbiased standard deviation; 1 if there is none."""
        spread = math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else 0.0
        return spread if spread > 0 else 1.0

    def update(self, scores: Tensor, all_reduce: Callable[[Tensor], Tensor] = lambda own: own) -> None:
        """Add scores `[batch]` of all processes in float64 (Chan, Golub and LeVeque 1979, equations 2.1)."""
        exact = scores.detach().cpu().double()
        count, total = all_reduce(torch.stack([exact.new_tensor(len(exact)), exact.sum()])).tolist()
        mean = total / count
        squares = float(all_reduce((exact - mean).square().sum()))
        difference, both = mean - self.mean, self.count + count
        self.mean += difference * count / both
        self.squares += squares + difference**2 * self.count * count / both
        self.count = both

    def normalized(self, scores: Tensor) -> Tensor:
        """Normalize scores `[batch]` by running mean and standard deviation, as LLaMA-Factory's `ppo_score_norm`."""
        return (scores - self.mean) / self.deviation
