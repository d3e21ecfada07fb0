"""Forecast of the time of a training step, without past runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.config.registry import method_of, quantizer_of, stage_of
from llf_core.estimate.bf16_probe import cached_speedup, default_threads
from llf_core.estimate.cards import card_of
from llf_core.estimate.cpu_probe import cpu_values
from llf_core.estimate.device_speed import products_per_second
from llf_core.estimate.devices import usual_bf16_speedup

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.estimate.planned_step import PlannedStep

CPU_SHARE = 0.6
"""Share of the fastest matrix products' speed that a step reaches on a CPU."""
BF16_SHARE = 0.6
"""Share of bfloat16's measured speedup that remains in the smaller products of a step."""
LAYER_SECONDS = {"cpu": 6.5e-3, "mps": 1.2e-3, "cuda": 6e-4}
"""Seconds of a layer's forward and backward pass that do not depend on its size."""
FORWARD_SHARE = 1 / 3
"""Share of the forward pass in these times."""
DOCUMENT_SECONDS = {"cpu": 3e-3, "mps": 0.0, "cuda": 0.0}
"""Seconds of each example in a layer's attention, which has products of its own on a CPU."""
PASSES = 11.0
"""Time of all but the products of one of a layer's values on a CPU, in sums of two values.

It is spent on norms, activation functions, softmax, casts and the bookkeeping of each, in both passes. A layer has
`inner` values a token. On a GPU it is part of `GPU_SHARE`.
"""
STEP_SECONDS = {"cpu": 0.02, "mps": 0.02, "cuda": 0.01}
"""Seconds of a micro-batch beside its layers: the loader, the loss and the bookkeeping."""
BYTES_PER_SECOND = {"cpu": 16e9, "mps": 60e9, "cuda": 900e9}
"""Bytes a second that an optimizer reads and writes; of a known GPU `UPDATE_SHARE` of its bandwidth."""
UPDATE_SHARE = 0.6
"""Share of the data sheet's bandwidth that an update reaches, as of `BYTES_PER_SECOND` on an A100."""
UPDATE_BYTES = 16
"""Bytes of weight and gradient that an update moves for each parameter, beside its state twice."""
LOSS_SHARE = {"answers": 0.5, "texts": 1.0}
"""Assumed share of the tokens that are in the loss and pass through the output head."""
_FORWARD = 2
"""Operations of a multiplication and addition."""


@dataclass(frozen=True)
class StepTime:
    """Seconds of an optimizer step, and their source as a part of a sentence."""

    seconds: float
    basis: str


def step_operations(
    config: RunConfig, step: PlannedStep, tokens: float, longest: float, *, checkpointing: bool
) -> float:
    """Count the floating-point operations of the forward and the backward pass over a step's tokens.

    Two for each parameter and token in the forward pass, two for the gradients of activations that the backward pass
    reaches, two for those of trained weights, and two more with checkpointing (arXiv 2001.08361, section 2.1, and
    1604.06174, section 4); attention scores by the length of the examples; the output head for the tokens in the loss;
    the encoder of images by its patches.

    Args:
        longest: mean tokens of an example; its last query attends to all of them.
    """
    model, training = step.sizes.model, step.training
    matrices = model.layers * model.inner * model.hidden
    reached = _reached(step)
    scores = model.layers * 2 * model.hidden * longest  # a causal query sees half of them, twice
    per_token = (_FORWARD * matrices + scores) * (1 + reached * (2 if checkpointing else 1))
    per_token += scores * reached  # the gradients of scores and of values
    inside = step.trained if training.trains_base else 0
    per_token += _FORWARD * min(inside, matrices) if training.trains_base else 3 * _FORWARD * step.trained
    head = _FORWARD * model.vocabulary * model.hidden * LOSS_SHARE.get(stage_of(config).data_kind, 1.0)
    per_token += head * (3 if training.trains_base and not method_of(config).selects_blocks else 2)
    return tokens * per_token + config.training.gradient_accumulation_steps * _encoder_operations(step)


def _reached(step: PlannedStep) -> float:
    """Share of the layers that the backward pass reaches."""
    layers = step.sizes.model.layers
    return (layers - step.training.first) / max(1, layers)


def _encoder_operations(step: PlannedStep) -> float:
    """Operations of the encoder of images; each micro-batch counts as the one with most patches."""
    encoder, training = step.sizes.encoder, step.training
    if encoder is None:
        return 0.0
    passes = 1 + training.trains_encoder * (2 if training.trains_base else 1)
    return float(training.patches * encoder.layers * encoder.inner * encoder.hidden * _FORWARD * passes)


def threads_of_process(config: RunConfig) -> int:
    """Compute threads of each process of a run on a CPU."""
    if config.launch.threads or "LOCAL_RANK" in os.environ:  # a trainer, whose launcher has divided them
        return config.launch.threads or default_threads()
    return max(1, default_threads() // config.launch.num_processes)


def step_seconds(
    config: RunConfig, step: PlannedStep, tokens: float, longest: float, *, checkpointing: bool
) -> StepTime:
    """Forecast the seconds of an optimizer step.

    The sum of four times: the operations of `step_operations` divided by the speed of matrix products; constants for
    each micro-batch, layer and example; on a CPU what is not a product, by the speed of sums; and the bytes that the
    update moves divided by the memory's speed. The constants of this module are fitted to runs of
    `benchmarks.estimate_times` on two cores with AMX; past runs correct them, see `llf_core.estimate.past_runs`.
    """
    kind = step.device.kind
    threads = threads_of_process(config)
    speed, basis = products_per_second(step.device, threads)
    if kind == "cpu":
        speed *= CPU_SHARE
        if step.training.width == 2:  # noqa: PLR2004 - bytes of bfloat16
            speedup = cached_speedup(threads) or usual_bf16_speedup()
            speed *= max(1.0, BF16_SHARE * speedup)
    operations = step_operations(config, step, tokens, longest, checkpointing=checkpointing)
    passes = config.training.gradient_accumulation_steps
    seconds = operations / speed * quantizer_of(config).slowdown.get(config.model.quantization_bit or 0, 1.0)
    model = step.sizes.model
    parts = passes * LAYER_SECONDS[kind] + tokens / longest * DOCUMENT_SECONDS[kind]
    if kind == "cpu":
        parts += tokens * model.inner * PASSES / cpu_values()
    done = FORWARD_SHARE * (1 + checkpointing) + (1 - FORWARD_SHARE) * _reached(step)
    seconds += model.layers * done * parts + passes * STEP_SECONDS[kind]
    moved = step.trained * UPDATE_BYTES + 2 * step.optimizer.state_bytes
    moved /= step.shares.parts
    card = card_of(step.device) if kind == "cuda" else None
    seconds += moved / (BYTES_PER_SECOND[kind] if card is None else UPDATE_SHARE * card.bandwidth)
    return StepTime(seconds, basis)
