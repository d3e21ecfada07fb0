"""Log-probabilities, values and entropies of completions, in one forward pass."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from llf_core.acceleration.kernels.entropy import entropies
from llf_core.acceleration.kernels.token_loss import log_probs
from llf_core.acceleration.patching.causal_head import causal_of, forward

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from llf_core.acceleration.patching.causal_head import Head


@dataclass(frozen=True)
class PolicyOutput:
    """Outputs for each token of a batch's completions.

    Attributes:
        log_probs: `[tokens]`, float32.
        values: `[tokens]`, float32: value of the state before the token; None without a value function.
        entropies: `[tokens]`, float32, without a graph: entropy of the distribution before the token, in nats; None
            if not requested.
    """

    log_probs: Tensor
    values: Tensor | None = None
    entropies: Tensor | None = None


def compute_policy(
    model: nn.Module,
    batch: Mapping[str, Any],
    temperature: float,
    value: nn.Module | None = None,
    *,
    entropy: bool = False,
) -> PolicyOutput:
    """Log-probabilities, values and entropies of completions under a policy, `[tokens]` each, in one forward pass.

    The policy is the sampling distribution `softmax(logits / temperature)`, without `top_k` and `top_p`.

    Args:
        batch: of `answer_batch`.
        value: called inside the model's forward, so that wrappers see one pass. None for no values.
    """

    def objective(hidden: Tensor, scored: Tensor, head: Head) -> PolicyOutput:
        at = batch["predictors"]
        states = hidden.reshape(-1, hidden.shape[-1]).index_select(0, at)
        rows = states if scored is hidden else scored.reshape(-1, scored.shape[-1]).index_select(0, at)
        rows, scaled_head = _apply_temperature(rows, head, temperature)
        return PolicyOutput(
            log_probs(rows, scaled_head, batch["targets"]),
            None if value is None else value(states, batch),
            entropies(rows.detach(), scaled_head) if entropy else None,
        )

    return _with_hidden(model, batch, objective)


def _apply_temperature(rows: Tensor, head: Head, temperature: float) -> tuple[Tensor, Head]:
    """Divide the logits of a head by the sampling temperature.

    Args:
        rows: hidden states `[tokens, hidden]`, or logits `[tokens, vocabulary]` for a head without weight.
    """
    if temperature == 1.0:
        return rows, head
    if head.weight is None:
        return rows / temperature, head
    softcap = None if head.softcap is None else head.softcap / temperature
    return rows, replace(head, scale=head.scale / temperature, softcap=softcap)


def _with_hidden(
    model: nn.Module, batch: Mapping[str, object], objective: Callable[[Tensor, Tensor, Head], PolicyOutput]
) -> PolicyOutput:
    """`forward` for an objective that needs hidden states even if a model computes its logits itself."""
    causal = causal_of(model)
    if hasattr(causal, "_llf_decoder"):
        found: PolicyOutput = forward(model, batch, lambda hidden, head: objective(hidden, hidden, head))
        return found
    kept: list[Tensor] = []
    handle = causal.base_model.register_forward_hook(lambda _, __, output: kept.append(output[0]))
    try:
        found = forward(model, batch, lambda logits, head: objective(kept[-1], logits, head))
    finally:
        handle.remove()
    return found
