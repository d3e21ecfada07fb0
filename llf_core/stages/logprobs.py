"""Log-probabilities of completions, summed over their tokens, for the preference losses."""

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
    """Log-probabilities of the N tokens of the completions of a batch.

    Attributes:
        tokens: `[N]`.
        owners: `[N]`, int64: index of the token's completion.
        sums: `[completions]`, summed over the tokens of each.
        lengths: `[completions]`, int64: supervised tokens of each.
    """

    tokens: Tensor
    owners: Tensor
    sums: Tensor
    lengths: Tensor


def answer_log_probs(model: nn.Module, batch: Mapping[str, Any]) -> Answers:
    """Log-probabilities of the completions of a batch of `PairCollator`, in one forward pass with a graph.

    Only hidden states that predict a token of a completion pass through the output head. Float32, or float64 for
    float64.
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
    """Number of examples (pairs of completions) in a batch of `PairCollator`, an int64 scalar."""
    ends: Tensor = batch["ends"]
    return ends.new_tensor(batch["groups"])
