"""Activation memory of decoder layers, in bytes per token."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llf_core.estimate.model_shapes import Architecture

FLOAT32_BYTES = 4  # bytes of a float32
NORM_STATES = 4  # hidden states that a layer keeps: input and output of each of its two norms
BLOCK = 256
"""Queries of a block of longer documents on a CPU (`acceleration.kernels.document_layout`)."""
WHOLE = 384
"""Tokens of the longest document that is one block."""
KEPT = 512
"""Keys of a block up to which probabilities are stored for the backward pass."""
OVERHEAD = {
    (True, False, True): 1.0,
    (True, False, False): 1.0,
    (False, False, True): 1.64,
    (False, False, False): 1.19,
    (True, True, True): 1.8,
    (True, True, False): 1.32,
    (False, True, True): 1.8,
    (False, True, False): 1.32,
}
"""Measured memory divided by the formula's on a Llama, by (fast path, base weights trained, autocast)."""


@dataclass(frozen=True)
class TrainingPass:
    """Settings of a forward and backward pass of a micro-batch.

    Attributes:
        tokens: tokens of the micro-batch, including padding.
        longest: tokens of its longest example.
        width: bytes per value of the compute dtype: 2 or 4.
        trains_base: whether weights of the layers themselves are trained, not only adapters.
        first: index of the first trained layer; layers below store no activations.
        tied: whether the embedding is trained and is the output head too.
        patches: patches of the images of the micro-batch, which are the positions of an encoder.
        chunks_head: whether the logits are computed in chunks, also where the rest of the fast path is not used.
        varies: whether batches have different numbers of tokens, for each of which a CPU compiles its products.
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
    tied: bool = False
    patches: int = 0
    trains_encoder: bool = False
    chunks_head: bool = False
    varies: bool = False


def activation_bytes(model: Architecture, step: TrainingPass) -> int:
    """Bytes of activations at the peak of a step: those stored for the backward pass, and one layer's gradients.

    Without the logits (see `head_bytes`) and layers below `step.first`. With gradient checkpointing only the input of
    each layer is stored, plus the activations of the layer that is being recomputed (arXiv 1604.06174, section 4). The
    formula is ours; its factors are measured, see `OVERHEAD`.
    """
    layers = max(0, model.layers - step.first)
    one = step.tokens * layer_bytes(model, step)
    passing = step.tokens * _transient_bytes(model, step)
    if not step.checkpointing:
        return int(layers * one + passing)
    entry = step.tokens * model.hidden * _hidden_bytes(step)
    return int(layers * entry + min(layers, 1) * one + passing)


def encoder_bytes(encoder: Architecture, step: TrainingPass) -> int:
    """Bytes of activations of a vision encoder at the peak of a step; a frozen encoder stores nothing."""
    if not step.trains_encoder:
        return 0
    own = dataclasses.replace(step, tokens=step.patches, longest=0, fast=False, first=0)
    return activation_bytes(encoder, own) - int(step.patches * _transient_bytes(encoder, own))


def layer_bytes(model: Architecture, step: TrainingPass) -> float:
    """Bytes that one layer stores per token for its backward pass.

    The sum of the inputs of its linear layers and norms, times a measured factor (`OVERHEAD`); plus the LoRA
    activations, which are float32; plus, on the CPU's fast path, the attention probabilities.
    """
    numbers = model.inner + NORM_STATES * model.hidden
    kept = numbers * step.width * OVERHEAD[step.fast, step.trains_base, step.autocast]
    kept += model.linears * step.rank * FLOAT32_BYTES
    if step.fast and step.on_cpu:
        kept += model.heads * kept_keys(step.longest) * step.width
    return kept


def kept_keys(longest: int) -> float:
    """Keys whose probabilities the CPU's attention stores for a query, on average over the queries of a document.

    Blocks with more than `KEPT` keys are computed again in the backward pass.
    """
    if longest <= WHOLE:
        return longest
    blocks = [(min(BLOCK, longest - first), min(first + BLOCK, longest)) for first in range(0, longest, BLOCK)]
    return sum(queries * keys for queries, keys in blocks if keys <= KEPT) / longest


def _transient_bytes(model: Architecture, step: TrainingPass) -> float:
    """Bytes per token of the gradients of activations in the backward pass of one layer.

    One gradient for each stored value, and two float32 hidden states of the residual stream.
    """
    return (model.inner + NORM_STATES * model.hidden) * step.width + 2 * model.hidden * FLOAT32_BYTES


def _hidden_bytes(step: TrainingPass) -> int:
    """Bytes per value of the hidden states, in the embedding's dtype: float32 if the base weights are trained."""
    return FLOAT32_BYTES if step.trains_base else step.width
