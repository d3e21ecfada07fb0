"""Forecast of the peak memory of a training step, as a sum of parts."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.config.declaration import OptimizerMemory
from llf_core.estimate.strategies import Shares, communication_bytes

if TYPE_CHECKING:
    from llf_core.estimate.model_shapes import Architecture


PROCESS_BYTES = {"cpu": 530_000_000, "mps": 900_000_000, "cuda": 0}
"""Bytes of the process with its libraries and data, without a model, measured (`benchmarks.estimate_peaks`).

The memory of the CUDA context is already missing from the device's free memory.
"""

QUANTIZED_PROCESS_BYTES = 130_000_000
"""Bytes of bitsandbytes with the compiler that it imports, measured; `benchmarks.load_peaks` compares the forecast."""

RANK_BYTES = 100_000_000
"""Additional bytes of each of several processes on a CPU (torch.distributed), measured (`benchmarks.scale`)."""

COMPILED_BYTES = 160_000_000
"""Bytes of the bfloat16 products that a CPU compiles for many shapes and a trainer keeps, with the gaps between them.

Measured (`benchmarks.estimate_peaks`); see `launch.local_process.RUNTIME_VARIABLES`.
"""

HALF = 2
"""Bytes of a bfloat16 value. Products of float32 are not compiled by their shapes."""

ADAM_BYTES = 8.0
"""Bytes of optimizer state for each trained parameter: two moments in float32."""
HEAD_BYTES = 64_000_000  # a chunk of logits, their gradient and their float32 copy on a CPU
HEAD_BYTES_GPU = 2 * (256 << 20)  # a chunk of logits, and their float32 copy
BYTES_PER_LOGIT = 10  # bytes of a logit that is not chunked: itself, its float32 copy and a gradient
ROW_COPIES = 2  # the output head with its trained rows, and the gradient of all of it

SLACK = {"cpu": 1.2, "mps": 1.1, "cuda": 1.1}
"""Allocated over used memory, measured (`benchmarks.estimate_peaks`).

Not of the activations on a CPU where weights of the base are trained: their gradients fill the gaps.
"""

PASSED = 0.4
"""Share of the activations and gradients of a CPU's backward pass that do not exist at the same time.

Measured (`benchmarks.estimate_peaks`): the activations of a layer are freed when the gradients of its weights are
there, and gaps between them remain.
"""
ALONE = Shares()


@dataclass(frozen=True)
class Forecast:
    """Peak memory of a step, in bytes.

    Attributes:
        base: the process itself: Python, its libraries, and on a CPU the products that it compiles.
        activations: activations stored for the backward pass.
        communication: what one of several processes holds for the others: whole layers, buckets of gradients.
    """

    base: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    head: int
    communication: int = 0

    @property
    def total(self) -> int:
        """Sum of all parts, in bytes."""
        return sum(dataclasses.astuple(self))

    @property
    def step(self) -> int:
        """Bytes allocated after the model is loaded."""
        return self.total - self.base - self.weights

    def text(self) -> str:
        """Total and parts in GB (1e9 bytes) as one line."""
        parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in dataclasses.asdict(self).items())
        return f"{self.total / 1e9:.2f} GB ({parts})"


FLOAT32_BYTES = 4  # bytes of a float32


def training_memory(  # noqa: PLR0913 - what a step is made of
    model: Architecture,
    step: TrainingPass,
    *,
    weights: int,
    trained: int,
    optimizer: OptimizerMemory | None = None,
    gradient_width: int = FLOAT32_BYTES,
    device: str = "cpu",
    quantized: bool = False,
    rows: bool = False,
    encoder: Architecture | None = None,
    shares: Shares = ALONE,
    parameters: int = 0,
    scales: int = 0,
) -> Forecast:
    """Forecast the peak memory of a training step of one process, by part.

    The accounting of ZeRO (arXiv 1910.02054, section 3) with the dtypes of LLF: weights, gradients, optimizer state and
    activations. The constants of this module and of `activations` are measured. Not included: 8-bit matrix products,
    and attention that stores the whole attention matrix.

    Args:
        weights: bytes of all weights as loaded.
        optimizer: state and gradients of the optimizer; None for Adam.
        gradient_width: bytes of a value of a gradient; 4 for float32.
        rows: whether single rows of the embedding are trained beside an adapter, for which PEFT copies the matrix.
        encoder: sizes of the vision encoder of a multimodal model.
        shares: the processes that train together, and what is divided among them.
        scales: bytes of the weights that are scales of bitsandbytes, which each process keeps.
    """
    optimizer = optimizer or OptimizerMemory(trained * ADAM_BYTES, trained)
    copies = trained * step.width if step.trains_base and step.autocast else 0  # autocast keeps them for a whole pass
    copies += ROW_COPIES * model.vocabulary * model.hidden * step.width if rows else 0
    embedding = model.vocabulary * model.hidden
    all_gradients = optimizer.gradients * gradient_width
    outer = model.outer * step.width if quantized else weights * model.outer // max(1, parameters)
    layer = (weights - outer) // model.layers
    outer_gradients = outer if step.trains_base and not step.first else 0
    layer_gradients = min(all_gradients, layer) if step.trains_base else all_gradients // model.layers
    communication = communication_bytes(
        shares, weights, (outer, outer_gradients), (layer, layer_gradients), all_gradients
    )
    gradients = all_gradients // shares.parts
    if step.tied and optimizer.gradients >= embedding:  # whole in each process
        gradients += embedding * gradient_width  # those of the embedding and of the head, before they are added
    stored = activation_bytes(model, step) + (0 if encoder is None else encoder_bytes(encoder, step))
    fills_gaps = device == "cpu" and step.trains_base
    activations, head = (1.0 if fills_gaps else SLACK[device]) * stored, head_bytes(model, step)
    if fills_gaps:
        activations -= PASSED * min(activations, gradients)
    compiled = COMPILED_BYTES if device == "cpu" and step.varies and step.width == HALF else 0
    together = RANK_BYTES if device == "cpu" and shares.ranks > 1 else 0
    own = shares.held(weights, scales)
    if device == "cpu":
        together += weights - own  # of the whole model that was loaded, which the allocator keeps
    return Forecast(
        base=PROCESS_BYTES[device]
        + together
        + compiled
        + (QUANTIZED_PROCESS_BYTES if quantized and device != "cuda" else 0),
        weights=own,
        gradients=gradients + copies,
        optimizer=int(optimizer.state_bytes) // shares.parts,
        activations=int(activations),
        head=head,
        communication=communication,
    )


def head_bytes(model: Architecture, step: TrainingPass) -> int:
    """Bytes of the logits, their float32 copy and gradient: of one chunk on the fast path, else of the micro-batch."""
    whole = step.tokens * model.vocabulary * BYTES_PER_LOGIT
    return min(HEAD_BYTES if step.on_cpu else HEAD_BYTES_GPU, whole) if step.fast or step.chunks_head else whole


def weight_bytes(model: Architecture, parameters: int, *, width: int, each: float | None = None) -> int:
    """Bytes of the weights before training: all in one dtype, or those of the layers quantized.

    Args:
        width: bytes of an unquantized parameter, such as those outside the layers.
        each: bytes of a quantized weight with its scales, see `Quantizer.bytes_per_weight`; None if not quantized.
    """
    if each is None:
        return parameters * width
    return int(model.outer * width + (parameters - model.outer) * each)


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
