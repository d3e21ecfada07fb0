"""Forecasts memory and time of one run on one device, corrected by past runs."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.config.registry import method_of, quantizer_of, stage_of
from llf_core.config.rules.conditions import packs_examples
from llf_core.estimate.device_speed import cpu_values, products_per_second
from llf_core.estimate.devices import (
    MEMORY_SHARE,
    cached_speedup,
    card_of,
    default_threads,
    precision_of,
    usual_bf16_speedup,
)
from llf_core.estimate.example_lengths import PACKED_FILL
from llf_core.estimate.fit_result import Duration, MemoryParts
from llf_core.estimate.model_sizes import model_sizes
from llf_core.estimate.past_runs import PastRun, correct_memory, correct_seconds, past_runs
from llf_core.estimate.planned_step import plan_step

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.estimate.devices import Device, Precision
    from llf_core.estimate.example_lengths import ExampleLengths
    from llf_core.estimate.model_sizes import ModelSizes
    from llf_core.estimate.planned_step import PlannedStep
    from llf_core.estimate.strategies import Traffic


UNKNOWN_LENGTHS = 1.1
"""Factor on the spread where the lengths of the examples are unknown; chosen by hand."""

SAMPLED_SPREAD = 4.0
"""Spread of the time where completions are sampled, before a run has shown it; chosen by hand."""


class Forecaster:
    """The parts of a forecast for one config, lengths and device.

    Attributes:
        sizes: sizes of the model; None if unknown.
        step: the largest step; None if the sizes or the number of trained parameters are unknown.
    """

    def __init__(self, config: RunConfig, lengths: ExampleLengths, device: Device) -> None:
        """Find the sizes of the model and plan its largest step."""
        self.config, self.lengths, self.device = config, lengths, device
        self.precision: Precision = precision_of(config, device)
        self.sizes: ModelSizes | None = model_sizes(config.model.model_name_or_path, config.model.cache_dir)
        self.step: PlannedStep | None = (
            None if self.sizes is None else plan_step(config, self.sizes, lengths, device, self.precision)
        )

    @property
    def processes(self) -> int:
        """Number of processes that share the memory of the device: 1 on GPUs."""
        return 1 if self.device.kind == "cuda" else self.config.launch.num_processes

    @property
    def traffic(self) -> Traffic | None:
        """What each process sends in an optimizer step; None if the step is unknown."""
        return None if self.step is None else self.step.traffic(self.config.training.gradient_accumulation_steps)

    def basis(self) -> tuple[str, ...]:
        """Sources of the forecast: model, data and precision, a sentence each."""
        model = "The sizes of the model are not known on this machine." if self.sizes is None else self.sizes.basis
        if self.sizes is not None and self.step is None:
            model = "The method cannot tell its number of trained parameters before the model is loaded."
        return model, self.lengths.basis, f"Precision: {self.precision.reason}."

    def uncorrected_memory(self, *, checkpointing: bool) -> MemoryParts | None:
        """Peak memory of a process by part, from shapes alone; None if unknown."""
        if self.step is None:
            return None
        found = self.step.memory(checkpointing=checkpointing)
        shares = self.step.shares
        return MemoryParts(
            weights=shares.held(self.step.base_weights, self.step.scales),
            adapters=shares.held(self.step.adapter_weights),
            gradients=found.gradients,
            optimizer=found.optimizer,
            activations=found.activations,
            logits=found.head,
            communication=found.communication,
            workspace=found.base,
        )

    def memory(self) -> tuple[MemoryParts | None, bool]:
        """Peak memory by part, corrected by a past run, and whether gradient checkpointing is on.

        It is on if the config says so or, where it leaves it open, if the run would not fit without it, as the trainer
        decides (`llf_core.models.gradient_checkpointing`). The parts are None if unknown.
        """
        training, model = self.config.training, self.config.model
        requested = training.gradient_checkpointing
        if model.disable_gradient_checkpointing or method_of(self.config).trains_cache(self.config):
            requested = False
        plain = self.corrected_memory(checkpointing=bool(requested))
        if plain is None or requested is not None or plain.total * self.processes <= MEMORY_SHARE * self.device.free:
            return plain, bool(requested)
        return self.corrected_memory(checkpointing=True), True

    def corrected_memory(self, *, checkpointing: bool) -> MemoryParts | None:
        """Peak memory by part, whose total is scaled to that of a past run of the same settings; None if unknown.

        Weights, gradients and optimizer state follow from shapes, so only activations, logits and workspace change.
        """
        found, like = self.uncorrected_memory(checkpointing=checkpointing), self.like(checkpointing=checkpointing)
        if found is None or like is None:
            return found
        factor = correct_memory(like).factor
        rest = found.activations + found.logits + found.workspace
        wanted = max(0.0, rest + found.total * (factor - 1))
        scaled = wanted / max(1, rest)
        return dataclasses.replace(
            found,
            activations=round(found.activations * scaled),
            logits=round(found.logits * scaled),
            workspace=round(found.workspace * scaled),
        )

    def mean_tokens(self) -> float:
        """Mean tokens of a process's optimizer step, with sampled completions."""
        config, stage = self.config, stage_of(self.config)
        rows = config.training.per_device_train_batch_size * config.training.gradient_accumulation_steps
        if packs_examples(config):
            return rows * config.data.cutoff_len * PACKED_FILL
        sequences = 2 if stage.data_kind in {"pairs", "unpaired_preferences"} else 1
        return rows * (sequences * self.lengths.mean(config.data.cutoff_len) + stage.completion_tokens(config, 0))

    def steps(self) -> int | None:
        """Number of optimizer steps, as the trainer counts them; None if the number of examples is unknown.

        With packing it is an estimate from the mean length of the examples and `PACKED_FILL`.
        """
        training, data = self.config.training, self.config.data
        if training.max_steps > 0:
            return training.max_steps
        if self.lengths.examples is None:
            return None
        rows = float(max(1, self.lengths.examples))
        if packs_examples(self.config):
            rows = max(1.0, rows * self.lengths.mean(data.cutoff_len) / (data.cutoff_len * PACKED_FILL))
        return max(1, math.ceil(stage_of(self.config).epoch_steps(self.config, rows) * training.num_train_epochs))

    def like(self, *, checkpointing: bool, tokens: float | None = None) -> PastRun | None:
        """The run as an entry of the table of past runs; None if unknown. `seconds` is computed, and `memory` is 0."""
        if self.step is None or self.sizes is None:
            return None
        config = self.config
        mean = self.mean_tokens() if tokens is None else tokens
        computed = self._computed(self.step, mean, checkpointing=checkpointing)
        memory = self.uncorrected_memory(checkpointing=checkpointing)
        quantized = f" {quantizer_of(config).run_name(bits)}" if (bits := config.model.quantization_bit) else ""
        return PastRun(
            time=time.time(),
            device=self.device.name,
            method=f"{config.method.finetuning_type}{quantized} {config.optimizer.optim}",
            stage=config.stage.stage,
            parameters=self.sizes.parameters,
            tokens=mean,
            checkpointing=checkpointing,
            uncorrected_seconds=computed.seconds,
            seconds=computed.seconds,
            uncorrected_memory=0 if memory is None else memory.total,
        )

    def _computed(self, step: PlannedStep, tokens: float, *, checkpointing: bool) -> StepTime:
        """Time of a step without past runs, with padding where batches have it."""
        config = self.config
        padded = not packs_examples(config) and (stage_of(config).pads or not step.training.fast)
        above = step.sizes.unpadded_above
        padded &= above is None or step.training.longest <= above
        batch, cutoff = config.training.per_device_train_batch_size, config.data.cutoff_len
        computed = tokens * (self.lengths.padding(batch, cutoff) if padded else 1.0)
        return step_seconds(config, step, computed, self.lengths.mean(cutoff), checkpointing=checkpointing)

    def duration(self, *, checkpointing: bool) -> Duration | None:
        """Forecast the time of the run, corrected by past runs; None if the step is unknown."""
        like, sent = self.like(checkpointing=checkpointing), self.traffic
        if like is None or self.step is None or sent is None:
            return None
        correction = correct_seconds(like, past_runs())
        computed = like.uncorrected_seconds * correction.factor
        each = computed + sent.exposed(computed)
        steps = self.steps()
        spread = correction.spread
        if correction.runs:
            runs = "one past run" if correction.runs == 1 else f"{correction.runs} past runs"
            basis = f"Time: {runs} on this device, the most similar counting most."
        else:
            source = self._computed(self.step, like.tokens, checkpointing=checkpointing).basis
            basis = f"Time: {source}, since no run on this device has ended yet."
            if stage_of(self.config).completion_tokens(self.config, 0):
                spread = SAMPLED_SPREAD
        if not self.lengths.exact:
            spread *= UNKNOWN_LENGTHS
        total = None if steps is None else each * steps
        return Duration(
            step_seconds=each,
            tokens_per_second=like.tokens * self.config.launch.ranks / each,
            steps=steps,
            seconds=total,
            low=None if total is None else total / spread,
            high=None if total is None else total * spread,
            spread=spread,
            basis=basis,
            computed=computed,
            sent=sent.sent,
            sending=sent.seconds,
        )


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
