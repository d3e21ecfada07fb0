"""Log-probabilities of responses, summed over their tokens, for the preference losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.acceleration.kernels.token_loss import log_probs
from llf_core.acceleration.patching.causal_head import forward

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn

    from llf_core.acceleration.patching.causal_head import Head


@dataclass(frozen=True)
class Answers:
    """Log-probabilities of the answers of a batch.

    Attributes:
        tokens: `[N]`, of each token that is learned.
        owners: `[N]`, the number of its answer.
        sums: `[answers]`.
        lengths: `[answers]`, learned tokens of each.
    """

    tokens: Tensor
    owners: Tensor
    sums: Tensor
    lengths: Tensor


def answer_log_probs(model: nn.Module, batch: Mapping[str, Any]) -> Answers:
    """Runs a model on a batch of answers; only what predicts a token of an answer goes through the head.

    Args:
        model: see `llf_core.acceleration.patching.causal_head.forward`.
        batch: of `llf_core.data.pair_collator.PairCollator`.

    Returns:
        In float32 (float64 for float64), with a graph.
    """

    def objective(hidden: Tensor, head: Head) -> Tensor:
        rows = hidden.reshape(-1, hidden.shape[-1]).index_select(0, batch["predictors"])
        return log_probs(rows, head, batch["targets"])

    tokens: Tensor = forward(model, batch, objective)
    owners = batch["answers"]
    count = len(batch["ends"])
    return Answers(
        tokens,
        owners,
        tokens.new_zeros(count).index_add(0, owners, tokens),
        owners.bincount(minlength=count),
    )


def group_count(batch: Mapping[str, Any]) -> Tensor:
    """Number of examples in a batch of `PairCollator`, each with two responses.

    Returns:
        An int64 scalar on the batch's device.
    """
    ends: Tensor = batch["ends"]
    return ends.new_tensor(batch["groups"])
