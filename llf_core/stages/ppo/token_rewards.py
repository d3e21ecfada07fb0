"""From the scores of answers to what each of their tokens earns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def token_rewards(log_probs: Tensor, reference: Tensor, mask: Tensor, scores: Tensor, beta: float) -> Tensor:
    """Rewards of tokens: each pays for leaving the reference, the last one gets the answer's score.

    Args:
        log_probs: `[batch, seq]`, of the policy that wrote the answers.
        reference: `[batch, seq]`, of the reference.
        mask: `[batch, seq]`, true where an answer has a token; each row's are its first ones, at least one.
        scores: `[batch]`.
        beta: coefficient of the KL penalty.

    Returns:
        `[batch, seq]`, 0 where no token is.

    Source:
        `r_t = -β (log π(a_t) - log π_ref(a_t))`, and the score at the last token: arXiv 1909.08593, equation 2, spread
        over the tokens.
    """
    rewards = (-beta * (log_probs - reference)).masked_fill(~mask, 0.0)
    last = mask.sum(1, keepdim=True) - 1
    return rewards.scatter_add(1, last, scores[:, None].to(rewards.dtype))


def answer_kl(log_probs: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Estimated KL divergence from the reference per completion: `Σ_t log π(a_t) - log π_ref(a_t)`.

    Args:
        log_probs: `[batch, seq]`, of the policy.
        reference: `[batch, seq]`, of the reference.
        mask: `[batch, seq]`, true at completion tokens.

    Returns:
        `[batch]`, in nats.
    """
    return (log_probs - reference).masked_fill(~mask, 0.0).sum(1)


@dataclass
class RunningMoments:
    """Mean and standard deviation of all scores that were seen.

    Attributes:
        count: scores seen.
        mean: of them.
        squares: sum of the squared distances from the mean.
    """

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    @property
    def deviation(self) -> float:
        """The unbiased standard deviation; 1 where there is none."""
        spread = math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else 0.0
        return spread if spread > 0 else 1.0

    def update(self, scores: Tensor, all_reduce: Callable[[Tensor], Tensor] = lambda own: own) -> None:
        """Takes in new scores.

        Args:
            scores: `[batch]`.
            all_reduce: sums a tensor over all processes.

        Source:
            The moments of two sets from those of each: Chan, Golub and LeVeque 1979, equations 2.1.
        """
        exact = scores.detach().cpu().double()
        count, total = all_reduce(torch.stack([exact.new_tensor(len(exact)), exact.sum()])).tolist()
        mean = total / count
        squares = float(all_reduce((exact - mean).square().sum()))
        difference, both = mean - self.mean, self.count + count
        self.mean += difference * count / both
        self.squares += squares + difference**2 * self.count * count / both
        self.count = both

    def normalised(self, scores: Tensor) -> Tensor:
        """Scores `[batch]` normalized by the running mean and standard deviation, same shape and dtype."""
        return (scores - self.mean) / self.deviation
