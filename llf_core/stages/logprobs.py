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
        tokens: `[N]`, of each supervised token.
        owners: `[N]`, int64: index of the token's completion.
        sums: `[completions]`, summed over the tokens of each.
        lengths: `[completions]`, int64: supervised tokens of each.
    """

    tokens: Tensor
    owners: Tensor
    sums: Tensor
    lengths: Tensor


def answer_log_probs(model: nn.Module, batch: Mapping[str, Any]) -> Answers:
    """Run a model on a batch of completions and compute their log-probabilities, in one forward pass.

    Only hidden states that predict a token of a completion pass through the output head, which needs most of the
    memory.

    Args:
        batch: of `llf_core.data.pair_collator.PairCollator`: the model's inputs; `predictors`, `targets` and `answers`
            (`[N]`); `ends` (`[completions]`).

    Returns:
        Those of the tokens and their sums, see `Answers`; in float32 (float64 for float64), with a graph.
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
    """Number of examples in a batch of `PairCollator`, which a preference loss is a mean over.

    An example is a pair, or for KTO a completion with a mismatched one: two completions in either case.

    Args:
        batch: of `llf_core.data.pair_collator.PairCollator`: `ends` (`[2 * groups]`) and the number `groups`.

    Returns:
        An int64 scalar on the batch's device.
    """
    ends: Tensor = batch["ends"]
    return ends.new_tensor(batch["groups"])
