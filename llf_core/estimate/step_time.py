"""Forecast of the time of a training step: from its arithmetic, then corrected by past runs of this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.config.registry import method_of, quantizer_of, stage_of
from llf_core.estimate.bf16_probe import cached_speedup, default_threads
from llf_core.estimate.devices import has_bf16_instructions
from llf_core.estimate.matmul_probe import products_per_second

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.estimate.planned_step import PlannedStep

CPU_SHARE = 0.6
"""Share of the fastest matrix products' speed that a step's products reach on a CPU."""
BF16_SHARE = 0.35
"""Share of bfloat16's speedup that remains in a step, where products are not all."""
USUAL_SPEEDUP = 8.0
"""Speedup of bfloat16 on a CPU with instructions for it, before it was measured."""
LAYER_SECONDS = {"cpu": 1.2e-3, "mps": 1.2e-3, "cuda": 6e-4}
"""Seconds of a layer's forward and backward pass that do not depend on its size: Python and the start of kernels."""
STEP_SECONDS = {"cpu": 0.02, "mps": 0.02, "cuda": 0.01}
"""Seconds of a micro-batch beside its layers: the loader, the loss and the bookkeeping."""
BYTES_PER_SECOND = {"cpu": 8e9, "mps": 60e9, "cuda": 900e9}
"""Bytes a second that an optimizer reads and writes."""
UPDATE_BYTES = 16
"""Bytes of weight and gradient that an update reads and writes for each parameter, beside its state twice."""
LOSS_SHARE = {"answers": 0.5, "texts": 1.0}
"""Share of the tokens that are in the loss, to which alone the output head is applied."""
_FORWARD = 2
"""Operations of a multiplication with a parameter and its addition."""


@dataclass(frozen=True)
class StepTime:
    """Forecast of a step's time without past runs.

    Attributes:
        seconds: seconds of an optimizer step, all its micro-batches included.
        basis: what it is computed from, as a part of a sentence.
    """

    seconds: float
    basis: str


def step_operations(
    config: RunConfig, step: PlannedStep, tokens: float, longest: float, *, checkpointing: bool
) -> float:
    """Count the floating-point operations of the forward and the backward pass over a step's tokens.

    Two for each parameter and token in the forward pass, two for the gradients of activations where the backward pass
    comes, two for those of trained weights, and two more with checkpointing (arXiv 2001.08361, section 2.1, and
    1604.06174); attention scores by the length of the examples; and the output head for the tokens in the loss. The
    encoder of images is counted by its patches.

    Args:
        config: for method and stage.
        step: the model and how it is trained.
        tokens: tokens of the step.
        longest: tokens of an example, on average; its last query sees them all.
        checkpointing: whether gradient checkpointing is on.

    Raises:
        PluginError: two installed packages declare the same plug-in.
    """
    model, training = step.sizes.model, step.training
    matrices = model.layers * model.inner * model.hidden
    reached = (model.layers - training.first) / max(1, model.layers)
    scores = model.layers * 2 * model.hidden * longest  # a causal query sees half of them, twice
    per_token = (_FORWARD * matrices + scores) * (1 + reached * (2 if checkpointing else 1))
    per_token += scores * reached  # the gradients of scores and of values
    inside = step.trained if training.trains_base else 0
    per_token += _FORWARD * min(inside, matrices) if training.trains_base else 3 * _FORWARD * step.trained
    head = _FORWARD * model.vocabulary * model.hidden * LOSS_SHARE.get(stage_of(config).data_kind, 1.0)
    per_token += head * (3 if training.trains_base and not method_of(config).selects_blocks else 2)
    return tokens * per_token + config.training.gradient_accumulation_steps * _encoder_operations(step)


def _encoder_operations(step: PlannedStep) -> float:
    """Operations of the encoder of images over a micro-batch, as of a decoder's matrices.

    A frozen one has a forward pass only. Each micro-batch counts as the one with most patches.
    """
    encoder, training = step.sizes.encoder, step.training
    if encoder is None:
        return 0.0
    passes = 1 + training.trains_encoder * (2 if training.trains_base else 1)
    return float(training.patches * encoder.layers * encoder.inner * encoder.hidden * _FORWARD * passes)


def step_seconds(
    config: RunConfig, step: PlannedStep, tokens: float, longest: float, *, checkpointing: bool
) -> StepTime:
    """Forecast the seconds of an optimizer step from its arithmetic and the speed of matrix products.

    The constants of this module are rough. The first run on a machine measures their error, and later forecasts are
    corrected by it, see `llf_core.estimate.past_runs`.

    The sum of three times: the operations of `step_operations` divided by the speed of matrix products; a constant for
    each layer and micro-batch; and the bytes that the update moves divided by the memory's speed.

    Args:
        config: for the number of micro-batches, quantization, method and stage.
        step: the model and how it is trained.
        tokens: tokens of an optimizer step, on average.
        longest: tokens of an example, on average: what attention sees.
        checkpointing: whether gradient checkpointing is on.

    Returns:
        The seconds, and what the speed is known from.

    Raises:
        HomeError: `LLF_HOME` begins with `~`, and the home of that user is unknown.
        OSError: too many files are open.
        PluginError: two installed packages declare the same plug-in.
    """
    kind = step.device.kind
    speed, basis = products_per_second(step.device)
    if kind == "cpu":
        speed *= CPU_SHARE
        if step.training.width == 2:  # noqa: PLR2004 - bytes of bfloat16
            usual = USUAL_SPEEDUP if has_bf16_instructions() else 1.0
            speed *= max(1.0, BF16_SHARE * (cached_speedup(config.launch.threads or default_threads()) or usual))
    operations = step_operations(config, step, tokens, longest, checkpointing=checkpointing)
    passes = config.training.gradient_accumulation_steps
    seconds = operations / speed * quantizer_of(config).slowdown.get(config.model.quantization_bit or 0, 1.0)
    seconds += passes * (step.sizes.model.layers * LAYER_SECONDS[kind] + STEP_SECONDS[kind])
    moved = step.trained * UPDATE_BYTES + 2 * step.optimizer.state_bytes
    seconds += moved / BYTES_PER_SECOND[kind]
    return StepTime(seconds, basis)
