"""Whether a run fits this machine, how long it takes, and what would make it fit: from its config alone."""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llf_core.config.registry import method_of, quantizer_of, stage_of
from llf_core.estimate.available import MEMORY_SHARE
from llf_core.estimate.cheaper_changes import Change, cheaper_changes
from llf_core.estimate.devices import device_of, find_devices, precision_of
from llf_core.estimate.disk_forecast import forecast_disk
from llf_core.estimate.example_lengths import PACKED_FILL, full_length
from llf_core.estimate.model_sizes import model_sizes
from llf_core.estimate.past_runs import PastRun, correct_memory, correct_seconds, known_lengths, past_runs
from llf_core.estimate.planned_step import plan_step
from llf_core.estimate.step_time import step_seconds
from llf_core.runs import free_bytes, home
from llf_core.runs.formatting import count, duration, size

if TYPE_CHECKING:
    from llf_core.config import RunConfig
    from llf_core.estimate.devices import Device, Precision
    from llf_core.estimate.example_lengths import ExampleLengths
    from llf_core.estimate.model_sizes import ModelSizes
    from llf_core.estimate.planned_step import PlannedStep

SAMPLED_SPREAD = 4.0
"""Uncertainty of the time where completions are sampled, before a run has shown it."""


@dataclass(frozen=True)
class MemoryParts:
    """Peak memory of a run by part, in bytes.

    Attributes:
        weights: the model's own weights, and those of a frozen second model.
        adapters: weights of adapters.
        gradients: gradients of trained weights.
        optimizer: the optimizer's state.
        activations: what the forward pass keeps for the backward pass.
        logits: logits, their float32 copy and gradient.
        workspace: the process itself with its libraries, on a GPU its context.
    """

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    workspace: int

    @property
    def total(self) -> int:
        """Sum of all parts, in bytes."""
        return sum(dataclasses.astuple(self))


@dataclass(frozen=True)
class Room:
    """Memory of a device beside what a run needs of it.

    Attributes:
        device: its name.
        kind: `cpu`, `cuda` or `mps`.
        free: bytes that are free now.
        total: bytes it has.
        needed: bytes that the run needs of it; 0 where it does not use it.
        fits: whether the forecast fits with a margin of 10 %.
    """

    device: str
    kind: str
    free: int
    total: int
    needed: int
    fits: bool


@dataclass(frozen=True)
class Duration:
    """Forecast of a run's time.

    Attributes:
        step_seconds: seconds of an optimizer step.
        tokens_per_second: tokens of the data that are trained on in a second.
        steps: number of optimizer steps; None if the number of examples is unknown.
        seconds: seconds of all steps, without loading, evaluation and checkpoints; None if the steps are unknown.
        low: seconds that are expected at least; None if unknown.
        high: seconds that are expected at most; None if unknown.
        spread: factor between the forecast and either end of the range.
        basis: where it comes from, as a sentence.
    """

    step_seconds: float
    tokens_per_second: float
    steps: int | None
    seconds: float | None
    low: float | None
    high: float | None
    spread: float
    basis: str


@dataclass(frozen=True)
class FitCheck:
    """What is known of a run before it starts.

    Attributes:
        memory: peak memory by part; None for a model or a method whose sizes are unknown.
        rooms: each device of this machine; the one that the run uses first.
        disk: bytes that the run will write; None if unknown.
        disk_free: bytes that are free where runs are kept.
        duration: forecast of time; None where there is none of memory.
        checkpointing: whether gradient checkpointing would be on.
        precision: dtype of the computation, and why, as a part of a sentence.
        basis: what the forecast is from, a sentence each: model, data, device.
        changes: what would make the run fit, the cheapest first; empty if it fits.
        exact: whether the sizes are the model's own, not those of a typical one.
        state: the run as it would stand in the table of past runs, without measured numbers; None if unknown.
    """

    memory: MemoryParts | None
    rooms: tuple[Room, ...]
    disk: int | None
    disk_free: int
    duration: Duration | None
    checkpointing: bool
    precision: str
    basis: tuple[str, ...]
    changes: tuple[Change, ...] = ()
    exact: bool = True
    state: PastRun | None = None

    @property
    def fits(self) -> bool | None:
        """Whether memory and disk suffice; None if the memory is unknown."""
        if self.memory is None:
            return None
        return self.rooms[0].fits and (self.disk is None or self.disk <= self.disk_free)

    def json(self) -> dict[str, Any]:
        """The forecast as plain values, for `llf estimate --json` and the form. Sizes are bytes, times seconds.

        Returns:
            `fits`, `exact`, `precision`, `gradient_checkpointing`, `basis`; `memory` by part with its `total`, or None;
            `devices` with their free memory; `disk`: what is `needed` and `free`; `time` of a run, or None; and the
            `changes` that would lower the memory.
        """
        memory = None if self.memory is None else {**dataclasses.asdict(self.memory), "total": self.memory.total}
        return {
            "fits": self.fits,
            "memory": memory,
            "devices": [dataclasses.asdict(room) for room in self.rooms],
            "disk": {"needed": self.disk, "free": self.disk_free},
            "time": None if self.duration is None else dataclasses.asdict(self.duration),
            "gradient_checkpointing": self.checkpointing,
            "precision": self.precision,
            "basis": list(self.basis),
            "exact": self.exact,
            "changes": [change.json() for change in self.changes],
        }

    def text(self) -> str:
        """The forecast as lines for a terminal."""
        lines = []
        if self.memory is None:
            lines.append("Memory  unknown")
        else:
            room = self.rooms[0]
            verdict = "fits" if room.fits else "does not fit"
            lines.append(
                f"Memory  {_size(self.memory.total)} of {_size(room.free)} free on {room.device}: it {verdict}"
            )
            lines += [f"  {name:<12}{_size(value):>9}" for name, value in dataclasses.asdict(self.memory).items()]
            lines.append(f"  {'Gradient checkpointing is on.' if self.checkpointing else ''}".rstrip())
        lines += [f"        {room.device}: {_size(room.free)} free of {_size(room.total)}" for room in self.rooms[1:]]
        written = "unknown" if self.disk is None else _size(self.disk)
        lines.append(f"Disk    {written} of {_size(self.disk_free)} free")
        lines += _time_lines(self.duration)
        lines += [f"        {sentence}" for sentence in self.basis]
        if self.memory is not None and not self.rooms[0].fits and not self.changes:
            lines.append("No change of the settings makes it fit on this device. Expected a smaller model.")
        if self.changes:
            lines.append("Changes that make it fit, the cheapest first:")
            lines += [f"  {change.text()}" for change in self.changes]
        return "\n".join(line for line in lines if line.strip())


def _time_lines(found: Duration | None) -> list[str]:
    if found is None:
        return ["Time    unknown"]
    speed = f"{found.step_seconds:.3g} s a step, {count(found.tokens_per_second)} tokens/s"
    if found.seconds is None or found.low is None or found.high is None:
        return [f"Time    {speed}; the number of steps is unknown"]
    span = f"{duration(found.seconds)} ({duration(found.low)} to {duration(found.high)})"
    return [f"Time    {span} for {count(found.steps or 0)} steps; {speed}"]


def check_fit(
    config: RunConfig, lengths: ExampleLengths | None = None, devices: tuple[Device, ...] | None = None
) -> FitCheck:
    """Forecast memory, disk and time of a run from its config, before anything is loaded or downloaded.

    It takes milliseconds, so that a form can ask after each key press.

    Args:
        config: the run's config.
        lengths: lengths of its examples. Default: as a past run counted them, else `cutoff_len`.
        devices: devices of the machine. Default: those that are found.

    Returns:
        The forecast; without memory and time if the sizes of the model are unknown.

    Raises:
        ModelSizeError: a file of the model has a size that no model has.
        HomeError: `LLF_HOME` begins with `~`, and the home of that user is unknown.
        OSError: a weight file of the model cannot be read.
        PluginError: two installed packages declare the same method.
    """
    found = find_devices() if devices is None else devices
    device = device_of(config, found)
    known = lengths or known_lengths(config) or full_length(config)
    forecast = Forecaster(config, known, device)
    parts, checkpointing = forecast.memory()
    disk, free = forecast_disk(config), free_bytes(home())
    needed = 0 if parts is None else parts.total
    rooms = tuple(
        Room(
            one.name,
            one.kind,
            one.free,
            one.total,
            needed if one is device else 0,
            one is not device or needed <= MEMORY_SHARE * one.free,
        )
        for one in sorted(found, key=lambda one: one is not device)
    )
    changes: tuple[Change, ...] = ()
    if parts is not None and not rooms[0].fits:
        changes = cheaper_changes(
            config, lambda changed: _needed(changed, known, device), int(MEMORY_SHARE * device.free)
        )
    return FitCheck(
        memory=parts,
        rooms=rooms,
        disk=disk,
        disk_free=free,
        duration=forecast.duration(checkpointing=checkpointing),
        checkpointing=checkpointing,
        precision=forecast.precision.reason,
        basis=forecast.basis(),
        changes=changes,
        exact=forecast.sizes is None or forecast.sizes.exact,
        state=forecast.like(checkpointing=checkpointing),
    )


def _needed(config: RunConfig, lengths: ExampleLengths, device: Device) -> int | None:
    parts, _ = Forecaster(config, lengths, device).memory()
    return None if parts is None else parts.total


class Forecaster:
    """The parts of a forecast for one config, lengths and device, from which `check_fit` is put together.

    Attributes:
        config: the run's config.
        lengths: lengths of its examples.
        device: where it would run.
        precision: in which precision.
        sizes: sizes of the model; None if unknown.
        step: the largest step; None if unknown.
    """

    def __init__(self, config: RunConfig, lengths: ExampleLengths, device: Device) -> None:
        """Find the sizes of the model and derive its largest step.

        Raises:
            ModelSizeError: a file of the model has a size that no model has.
            HomeError: `LLF_HOME` begins with `~`, and the home of that user is unknown.
            OSError: a weight file of the model cannot be read.
            PluginError: two installed packages declare the same method.
        """
        self.config, self.lengths, self.device = config, lengths, device
        self.precision: Precision = precision_of(config, device)
        self.sizes: ModelSizes | None = model_sizes(config.model.model_name_or_path, config.model.cache_dir)
        self.step: PlannedStep | None = (
            None if self.sizes is None else plan_step(config, self.sizes, lengths, device, self.precision)
        )

    def basis(self) -> tuple[str, ...]:
        """What the forecast is from: the model, its data and the precision, a sentence each."""
        model = "The sizes of the model are not known on this machine." if self.sizes is None else self.sizes.basis
        if self.sizes is not None and self.step is None:
            model = "The method cannot tell its number of trained parameters before the model is loaded."
        return model, self.lengths.basis, f"Precision: {self.precision.reason}."

    def uncorrected_memory(self, *, checkpointing: bool) -> MemoryParts | None:
        """Peak memory by part, from shapes alone; None if it is unknown.

        Args:
            checkpointing: whether gradient checkpointing is on.
        """
        if self.step is None:
            return None
        found = self.step.memory(checkpointing=checkpointing)
        return MemoryParts(
            weights=self.step.base_weights,
            adapters=self.step.adapter_weights,
            gradients=found.gradients,
            optimizer=found.optimizer,
            activations=found.activations,
            logits=found.head,
            workspace=found.base,
        )

    def memory(self) -> tuple[MemoryParts | None, bool]:
        """Peak memory by part, corrected by a past run, and whether gradient checkpointing is on.

        It is on if the config says so or, where it leaves it open, if the run would not fit without it, as the trainer
        decides (`llf_core.models.gradient_checkpointing`).

        Returns:
            None and False if the memory is unknown.

        Raises:
            OSError: too many files are open.
            PluginError: two installed packages declare the same stage.
            HomeError: `LLF_HOME` begins with `~`, and the home of that user is unknown.
        """
        training, model = self.config.training, self.config.model
        requested = training.gradient_checkpointing
        if model.disable_gradient_checkpointing or method_of(self.config).trains_cache(self.config):
            requested = False
        plain = self.corrected_memory(checkpointing=bool(requested))
        if plain is None or requested is not None or plain.total <= MEMORY_SHARE * self.device.free:
            return plain, bool(requested)
        return self.corrected_memory(checkpointing=True), True

    def corrected_memory(self, *, checkpointing: bool) -> MemoryParts | None:
        """Peak memory by part; what is not weights is scaled to what a past run of the same settings has shown.

        Args:
            checkpointing: whether gradient checkpointing is on.

        Raises:
            OSError: too many files are open.
            PluginError: two installed packages declare the same stage.
            HomeError: `LLF_HOME` begins with `~`, and the home of that user is unknown.
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
        """Tokens of an optimizer step on average, sampled completions included.

        Raises:
            PluginError: two installed packages declare the same stage.
        """
        config, stage = self.config, stage_of(self.config)
        rows = config.training.per_device_train_batch_size * config.training.gradient_accumulation_steps
        if config.data.packing:
            return rows * config.data.cutoff_len * PACKED_FILL
        sequences = 2 if stage.data_kind in {"pairs", "unpaired_preferences"} else 1
        return rows * (sequences * self.lengths.mean(config.data.cutoff_len) + stage.completion_tokens(config))

    def steps(self) -> int | None:
        """Number of optimizer steps; None if the number of examples is unknown."""
        training, data = self.config.training, self.config.data
        if training.max_steps > 0:
            return training.max_steps
        examples = self.lengths.examples
        if examples is None:
            return None
        held_out = data.val_size if data.val_size >= 1 else examples * data.val_size
        rows = max(1.0, min(examples, data.max_samples or examples) - float(held_out))
        if data.packing:
            rows = max(1.0, rows * self.lengths.mean(data.cutoff_len) / (data.cutoff_len * PACKED_FILL))
        batch = training.per_device_train_batch_size
        micro = math.ceil(rows / batch)
        return max(1, math.ceil(math.ceil(micro / training.gradient_accumulation_steps) * training.num_train_epochs))

    def like(self, *, checkpointing: bool, tokens: float | None = None) -> PastRun | None:
        """The run as the table of past runs would hold it, with what was computed and without what was measured.

        Args:
            checkpointing: whether gradient checkpointing is on.
            tokens: tokens of a step on average. Default: as forecast.

        Returns:
            The entry, with `seconds` and `memory` as they are computed; None if the sizes are unknown.

        Raises:
            OSError: too many files are open.
            PluginError: two installed packages declare the same stage.
            HomeError: `LLF_HOME` begins with `~`, and the home of that user is unknown.
        """
        if self.step is None or self.sizes is None:
            return None
        config = self.config
        mean = self.mean_tokens() if tokens is None else tokens
        longest = self.lengths.mean(config.data.cutoff_len)
        computed = step_seconds(config, self.step, mean, longest, checkpointing=checkpointing)
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

    def duration(self, *, checkpointing: bool) -> Duration | None:
        """Forecast the time of the run, corrected by past runs; None if the sizes are unknown.

        Args:
            checkpointing: whether gradient checkpointing is on.

        Raises:
            OSError: too many files are open.
            PluginError: two installed packages declare the same stage.
            HomeError: `LLF_HOME` begins with `~`, and the home of that user is unknown.
        """
        like = self.like(checkpointing=checkpointing)
        if like is None or self.step is None:
            return None
        correction = correct_seconds(like, past_runs())
        each = like.uncorrected_seconds * correction.factor
        steps = self.steps()
        spread = correction.spread
        if correction.runs:
            runs = "one past run" if correction.runs == 1 else f"{correction.runs} past runs"
            basis = f"Time: {runs} on this device, the most similar counting most."
        else:
            source = step_seconds(
                self.config, self.step, like.tokens, self.lengths.mean(self.config.data.cutoff_len),
                checkpointing=checkpointing,
            ).basis  # fmt: skip
            basis = f"Time: {source}, since no run on this device has ended yet."
            if stage_of(self.config).completion_tokens(self.config):
                spread = SAMPLED_SPREAD
        if not self.lengths.exact:
            spread *= 1.1
        total = None if steps is None else each * steps
        return Duration(
            step_seconds=each,
            tokens_per_second=like.tokens / each,
            steps=steps,
            seconds=total,
            low=None if total is None else total / spread,
            high=None if total is None else total * spread,
            spread=spread,
            basis=basis,
        )


def _size(amount: int) -> str:
    return " ".join(size(amount))
