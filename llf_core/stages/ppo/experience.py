"""From sampled completions and their scores to advantages and returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from llf_core.stages.ppo.advantages import gae, whiten
from llf_core.stages.ppo.batch import pad_to_rows
from llf_core.stages.ppo.losses import explained_variance
from llf_core.stages.ppo.rollout import Rollout
from llf_core.stages.ppo.token_rewards import answer_kl, token_rewards

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from llf_core.config.declarations.stages.ppo import PPOOptions
    from llf_core.stages.completion_scores import SampledCompletion
    from llf_core.stages.ppo.rollout_worker import TokenOutputs


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
