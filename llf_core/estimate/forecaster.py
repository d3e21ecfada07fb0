"""Forecasts memory and time of one run on one device, corrected by past runs."""

from __future__ import annotations

import dataclasses
import math
import time
from typing import TYPE_CHECKING

from llf_core.config.registry import method_of, quantizer_of, stage_of
from llf_core.config.rules.conditions import packs_examples
from llf_core.estimate.available import MEMORY_SHARE
from llf_core.estimate.devices import precision_of
from llf_core.estimate.example_lengths import PACKED_FILL
from llf_core.estimate.fit_result import Duration, MemoryParts
from llf_core.estimate.model_sizes import model_sizes
from llf_core.estimate.past_runs import PastRun, correct_memory, correct_seconds, past_runs
from llf_core.estimate.planned_step import plan_step
from llf_core.estimate.step_time import step_seconds

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.estimate.devices import Device, Precision
    from llf_core.estimate.example_lengths import ExampleLengths
    from llf_core.estimate.model_sizes import ModelSizes
    from llf_core.estimate.planned_step import PlannedStep
    from llf_core.estimate.step_time import StepTime
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
