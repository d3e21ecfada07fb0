"""What the layers of a decoder keep for the backward pass, in bytes a token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llf_core.estimate.model_shapes import Architecture

MASTER = 4  # bytes of a float32
AROUND = 4  # hidden states that a layer keeps: input and output of each of its two norms
KEYS = 384  # keys a query whose probabilities the CPU's attention keeps at most, on average over a document
EXTRA = {
    (True, False, True): 1.0,
    (True, False, False): 1.0,
    (False, False, True): 1.64,
    (False, False, False): 1.19,
    (True, True, True): 1.8,
    (True, True, False): 1.32,
    (False, True, True): 1.8,
    (False, True, False): 1.32,
}
"""Kept over what would suffice, by (fast path, base weights trained, autocast); counted on a Llama."""


@dataclass(frozen=True)
class Pass:
    """One forward and backward of a micro-batch.

    Attributes:
        tokens: of the micro-batch, padding included.
        longest: tokens of its longest example.
        width: bytes of a number that is computed in: 2 or 4.
        autocast: whether weights have another dtype than what is computed in.
        trains_base: whether weights of the layers themselves are trained, not adapters beside them.
        rank: columns of an adapter; 0 where there is none.
        fast: whether the fast path computes it.
        on_cpu: whether attention is the CPU's.
        first: the first layer that is trained; those below keep nothing.
        checkpointing: whether layers are computed again in the backward pass.
    """

    tokens: int
    longest: int
    width: int
    autocast: bool = False
    trains_base: bool = False
    rank: int = 0
    fast: bool = True
    on_cpu: bool = True
    first: int = 0
    checkpointing: bool = False


def activations(model: Architecture, step: Pass) -> int:
    """Bytes that a micro-batch keeps until its backward pass, and what the backward of a layer needs beside them.

    Args:
        model: its sizes.
        step: how it is computed.
    """
    layers = max(0, model.layers - step.first)
    one = step.tokens * layer(model, step)
    passing = step.tokens * transient(model, step)
    if not step.checkpointing:
        return int(layers * one + passing)
    entry = step.tokens * model.hidden * stream(step)
    return int(layers * entry + min(layers, 1) * one + passing)


def layer(model: Architecture, step: Pass) -> float:
    """Bytes that one layer keeps for one token."""
    numbers = model.inner + AROUND * model.hidden
    kept = numbers * step.width * EXTRA[step.fast, step.trains_base, step.autocast]
    kept += model.linears * step.rank * MASTER
    if step.fast and step.on_cpu:
        kept += model.heads * min(step.longest, KEYS) * step.width
    return kept


def transient(model: Architecture, step: Pass) -> float:
    """Bytes a token of the gradients that are under way in the backward pass of one layer."""
    return (model.inner + AROUND * model.hidden) * step.width + 2 * model.hidden * MASTER


def stream(step: Pass) -> int:
    """Bytes of a number of the hidden state between layers: float32 where the embedding is."""
    return MASTER if step.trains_base else step.width
