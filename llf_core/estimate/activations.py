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
"""Queries of a block, into which the CPU divides longer documents (`acceleration.kernels.document_layout`)."""
WHOLE = 384
"""Tokens of the longest document that is one block."""
KEPT = 512
"""Most keys of a block whose probabilities are stored for the backward pass."""
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
"""Measured memory divided by the formula's, by (fast path, base weights trained, autocast).

Measured on a Llama; `benchmarks.estimate_peaks` compares the whole forecast with measured peaks.
"""


@dataclass(frozen=True)
class TrainingPass:
    """Settings of a forward and backward pass of a micro-batch.

    Attributes:
        tokens: tokens of the micro-batch, including padding.
        longest: tokens of its longest example.
        width: bytes per value of the compute dtype: 2 or 4.
        autocast: whether weights have another dtype than the compute dtype.
        trains_base: whether weights of the layers themselves are trained, not only adapters.
        rank: LoRA rank; 0 without an adapter.
        first: index of the first trained layer; layers below store no activations.
        tied: whether the embedding is trained and is the output head too.
        patches: patches of the images of the micro-batch, which are the positions of an encoder.
        trains_encoder: whether the encoder is trained, so that its layers store activations too.
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

    With gradient checkpointing only the input of each layer is stored, plus the activations of the layer that is being
    recomputed (arXiv 1604.06174, section 4). The formula is ours; its factors are measured, see `OVERHEAD`.

    Returns:
        Bytes, without the logits (see `head_bytes`); layers below `step.first` count as 0.
    """
    layers = max(0, model.layers - step.first)
    one = step.tokens * layer_bytes(model, step)
    passing = step.tokens * _transient_bytes(model, step)
    if not step.checkpointing:
        return int(layers * one + passing)
    entry = step.tokens * model.hidden * _hidden_bytes(step)
    return int(layers * entry + min(layers, 1) * one + passing)


def encoder_bytes(encoder: Architecture, step: TrainingPass) -> int:
    """Bytes of activations of a vision encoder at the peak of a step, by the formula of the decoder's layers.

    A frozen encoder stores nothing, since no gradient passes through it; the activations of its layers have been freed
    before those of the decoder exist.
    """
    if not step.trains_encoder:
        return 0
    own = dataclasses.replace(step, tokens=step.patches, longest=0, fast=False, first=0)
    return activation_bytes(encoder, own) - int(step.patches * _transient_bytes(encoder, own))


def layer_bytes(model: Architecture, step: TrainingPass) -> float:
    """Bytes that one layer stores per token for its backward pass.

    The sum of the inputs of its linear layers and norms, times a measured factor (`OVERHEAD`); plus the LoRA
    activations, which are float32; plus, on the CPU's fast path, the attention probabilities.

    Args:
        step: settings of the pass: `width`, `fast`, `trains_base`, `autocast` and `rank`; on the CPU's fast path
            `longest` too.
    """
    numbers = model.inner + NORM_STATES * model.hidden
    kept = numbers * step.width * OVERHEAD[step.fast, step.trains_base, step.autocast]
    kept += model.linears * step.rank * FLOAT32_BYTES
    if step.fast and step.on_cpu:
        kept += model.heads * kept_keys(step.longest) * step.width
    return kept


def kept_keys(longest: int) -> float:
    """Keys of a query whose probabilities the CPU's attention stores, on average over the queries of a document.

    A long document takes less memory a token than a short one, since blocks with more than `KEPT` keys are computed
    again in the backward pass.

    Source:
        `llf_core.acceleration.kernels.document_layout`, which divides documents into the same blocks.
    """
    if longest <= WHOLE:
        return longest
    blocks = [(min(BLOCK, longest - first), min(first + BLOCK, longest)) for first in range(0, longest, BLOCK)]
    return sum(queries * keys for queries, keys in blocks if keys <= KEPT) / longest


def _transient_bytes(model: Architecture, step: TrainingPass) -> float:
    """Bytes per token of the gradients of activations in the backward pass of one layer.

    They exist for one layer at a time, so they are counted once, not per layer.

    Args:
        step: settings of the pass; only its `width` is used.

    Returns:
        Bytes per token: one gradient for each stored value, and two float32 hidden states of the residual stream.
    """
    return (model.inner + NORM_STATES * model.hidden) * step.width + 2 * model.hidden * FLOAT32_BYTES


def _hidden_bytes(step: TrainingPass) -> int:
    """Bytes per value of the hidden states between layers, which gradient checkpointing stores.

    They have the embedding's dtype, which is float32 if the base weights are trained.
    """
    return FLOAT32_BYTES if step.trains_base else step.width
