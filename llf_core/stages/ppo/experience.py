"""From sampled completions and their scores to rewards of tokens, advantages, returns and PPO's clipped losses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from llf_core.stages.ppo.batch import pad_to_rows
from llf_core.stages.ppo.rollout import Rollout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from llf_core.config.declarations.stages.ppo import PPOOptions
    from llf_core.stages.completion_scores import SampledCompletion
    from llf_core.stages.ppo.rollout import TokenOutputs


@dataclass(frozen=True)
class Experience:
    """Result of a phase of sampling.

    Attributes:
        kl: `[answers]`, estimated KL divergence of each completion from the reference, in nats.
        metrics: name, sum and count of each logged metric.
    """

    rollout: Rollout
    kl: Tensor
    metrics: tuple[tuple[str, Tensor | float, int], ...]


def build_experience(  # noqa: PLR0913 - what advantages are made of
    completions: Sequence[SampledCompletion],
    scores: Tensor,
    outputs: TokenOutputs,
    options: PPOOptions,
    beta: float,
    *,
    all_reduce: Callable[[Tensor], Tensor] = lambda own: own,
) -> Experience:
    """Compute token rewards (arXiv 1909.08593, section 2.2), then advantages and returns (arXiv 1506.02438).

    Advantages are whitened over all tokens of the phase on all processes.

    Args:
        completions: at least one.
        scores: `[answers]`, float32, normalized if the config says so.
        beta: β, coefficient of the KL penalty.
    """
    lengths = torch.tensor([len(one.answer) for one in completions])
    (now, mask), (before, _), (expected, _) = (
        pad_to_rows(one, lengths) for one in (outputs.log_probs, outputs.reference, outputs.values)
    )
    rewards = token_rewards(now, before, mask, scores, beta)
    if options.ppo_whiten_rewards:
        rewards = whiten(rewards, mask, shift_mean=False, all_reduce=all_reduce)
    advantages, returns = gae(rewards, expected, mask, options.ppo_gamma, options.ppo_lam)
    kl = answer_kl(now, before, mask)
    tokens = int(lengths.sum())
    explained = explained_variance(expected[mask], returns[mask], all_reduce)
    metrics = (
        ("kl", kl.sum(), len(kl)),
        ("kl_coef", beta, 1),
        ("entropy", outputs.entropies.sum(), tokens),
        ("advantages", advantages[mask].sum(), tokens),
        *((("explained_variance", explained, 1),) if explained.isfinite() else ()),
    )
    rollout = Rollout(
        [list(one.prompt) for one in completions],
        [list(one.answer) for one in completions],
        outputs.log_probs,
        outputs.values,
        whiten(advantages, mask, all_reduce=all_reduce)[mask],
        returns[mask],
    )
    return Experience(rollout, kl, metrics)


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


HORIZON = 10_000
"""Completions in which the coefficient changes by a factor of about e^0.2 at most."""
BOUND = 0.2


@dataclass
class KLController:
    """Coefficient β of the KL penalty, fixed or adapted to a target KL divergence of a completion in nats."""

    coefficient: float
    target: float | None

    def update(self, kl: float, answers: int) -> None:
        """Adapt the coefficient to the measured KL divergence of a phase; does nothing without a target.

        `e = clip(KL / KL_target - 1, -0.2, 0.2)`, `β ← β (1 + K e)`: arXiv 1909.08593, section 2.2, where K is 0.1.
        Here K is the number of completions over a horizon of 10,000, as in `AdaptiveKLController` of the authors'
        code (github.com/openai/lm-human-preferences).

        Args:
            kl: KL divergence summed over the tokens of a completion, mean over completions, in nats.
        """
        if self.target is None:
            return
        error = min(max(kl / self.target - 1, -BOUND), BOUND)
        self.coefficient *= 1 + error * answers / HORIZON


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
