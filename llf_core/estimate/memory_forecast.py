"""How much memory a training step needs at its peak, as a sum that can be read."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.estimate.activations import MASTER, activations

if TYPE_CHECKING:
    from llf_core.estimate.activations import Pass
    from llf_core.estimate.model_shapes import Architecture

BASE = {"cpu": 760_000_000, "mps": 900_000_000, "cuda": 0}
"""Bytes of the process with its libraries and data, without a model.

Pages of a mapped weight file come on top in the resident set; the kernel drops them where memory is short. What
CUDA's context takes is missing from its free memory already.
"""
ADAM = 8.0
STATES = {"sgd": 0.0, "adafactor": 0.1, "lion": 4.0, "adagrad": 4.0, "rmsprop": 4.0, "ademamix": 12.0}
"""Bytes of optimizer state for each trained number, by the first word of its name; Adam's two moments are `ADAM`."""
HEAD = 64_000_000  # a chunk of logits, their gradient and their float32 copy on a CPU
HEAD_ELSEWHERE = 2 * (256 << 20)  # a chunk of logits, and their float32 copy
LOGITS = 10  # bytes of a logit that is not chunked: itself, its float32 copy and a gradient
SLACK = 1.1  # what an allocator holds over what is in use
SCALES = 0.52  # bytes of a 4-bit weight with its scales


@dataclass(frozen=True)
class Forecast:
    """Bytes at the peak of a step.

    Attributes:
        base: the process itself: Python and its libraries.
        weights: all weights, trained ones in their own precision.
        gradients: of the trained weights.
        optimizer: its state.
        activations: kept by the layers for the backward pass.
        head: logits.
    """

    base: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    head: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(dataclasses.astuple(self))

    @property
    def step(self) -> int:
        """What is not there yet when the model is loaded."""
        return self.total - self.base - self.weights

    def text(self) -> str:
        """One line for a person."""
        parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in dataclasses.asdict(self).items())
        return f"{self.total / 1e9:.2f} GB ({parts})"


def training_memory(  # noqa: PLR0913 - what a step is made of
    model: Architecture,
    step: Pass,
    *,
    weights: int,
    trained: int,
    optim: str = "adamw_torch_fused",
    device: str = "cpu",
) -> Forecast:
    """Forecasts the peak of a training step.

    Args:
        model: the model's sizes.
        step: its largest micro-batch, and how it is computed.
        weights: bytes of all weights, as they are loaded.
        trained: how many numbers are trained.
        optim: the optimizer's name, as in the config.
        device: `cpu`, `mps` or `cuda`.

    Returns:
        Its parts. Not counted: 8-bit products, attention that builds its whole matrix, models without layers.
    """
    copies = trained * step.width if step.trains_base and step.autocast else 0  # autocast keeps them for a whole pass
    return Forecast(
        base=BASE[device],
        weights=weights,
        gradients=trained * MASTER + copies,
        optimizer=int(trained * state_bytes(optim)),
        activations=int(SLACK * activations(model, step)),
        head=head_bytes(model, step),
    )


def state_bytes(optim: str) -> float:
    """Bytes of state that an optimizer keeps for each trained number."""
    name = optim.removeprefix("paged_")
    whole = STATES.get(name.split("_")[0], ADAM)
    return whole / 4 if name.endswith("8bit") else whole


def head_bytes(model: Architecture, step: Pass) -> int:
    """Bytes of the logits: of a chunk on the fast path, else of the whole micro-batch."""
    whole = step.tokens * model.vocabulary * LOGITS
    return min(HEAD if step.on_cpu else HEAD_ELSEWHERE, whole) if step.fast else whole


def weight_bytes(model: Architecture, parameters: int, *, width: int, bits: int | None = None) -> int:
    """Bytes of the weights before any is trained: all in one precision, or those of the layers in 4 or 8 bits.

    Args:
        model: the model's sizes.
        parameters: how many there are.
        width: bytes of an unquantized one.
        bits: `quantization_bit`.
    """
    if bits is None:
        return parameters * width
    each = 1 if bits == 8 else SCALES  # noqa: PLR2004 - the key's value
    return int(model.outer * width + (parameters - model.outer) * each)
