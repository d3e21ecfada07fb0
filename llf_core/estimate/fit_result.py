"""What a forecast says: memory by part, room on each device, time, and the whole as JSON and as text."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.config.number_format import with_unit
from llf_core.runs.formatting import count, duration, size

if TYPE_CHECKING:
    from llf_core.estimate.cheaper_changes import Change
    from llf_core.estimate.loading import Loading
    from llf_core.estimate.past_runs import PastRun


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
        """Sum of all parts, in bytes, which is compared with the free memory."""
        return sum(dataclasses.astuple(self))


@dataclass(frozen=True)
class Room:
    """Memory of a device beside what a run needs of it.

    Attributes:
        device: its name.
        kind: `cpu`, `cuda` or `mps`.
        free: bytes that are free now.
        usable: bytes of `free` that a run is started with: all but a margin of 10 %.
        total: bytes it has.
        needed: bytes that the run needs of it, in training or while its model is quantized, without pages of files that
            the system drops when memory is short; 0 where it does not use it.
        fits: whether the run needs at most what is usable.
    """

    device: str
    kind: str
    free: int
    usable: int
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
        disk: bytes that the run takes at most, see `forecast_disk`; None if unknown.
        disk_free: bytes that are free where runs are kept.
        duration: forecast of time; None where there is none of memory.
        checkpointing: whether gradient checkpointing would be on.
        precision: dtype of the computation, and why, as a part of a sentence.
        basis: what the forecast is from, a sentence each: model, data, device.
        changes: what would make the run fit, the cheapest first; empty if it fits.
        exact: whether the sizes are the model's own, not those of a typical one.
        state: the run as it would stand in the table of past runs, without measured numbers; None if unknown.
        loading: peak while the model is quantized as it is loaded; None where loading needs no more than training.
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
    loading: Loading | None = None

    @property
    def peak(self) -> int | None:
        """Peak of the process in bytes: that of training, or of loading where it is higher; None if unknown.

        Whether a run fits is decided without the pages of the weight files, which the system drops when memory is
        short.
        """
        if self.memory is None:
            return None
        return max(self.memory.total, 0 if self.loading is None else self.loading.total)

    @property
    def fits(self) -> bool | None:
        """Whether memory and disk are enough; None if the memory is unknown.

        A disk usage that is unknown counts as one that fits.
        """
        if self.memory is None:
            return None
        return self.rooms[0].fits and (self.disk is None or self.disk <= self.disk_free)

    def json(self) -> dict[str, object]:
        """The forecast as plain values, for `llf estimate --json` and the form. Sizes are bytes, times seconds.

        Returns:
            `fits`, `exact`, `precision`, `gradient_checkpointing`, `basis`; `memory` by part with its `total`, or None;
            `loading`: its `total` with what is `mapped`, or None; the `peak` of both; `devices` with their free memory;
            `disk`: what is `needed` and `free`; `time` of a run, or None; and the `changes` that would lower the
            memory.
        """
        memory = None if self.memory is None else {**dataclasses.asdict(self.memory), "total": self.memory.total}
        return {
            "fits": self.fits,
            "memory": memory,
            "loading": None if self.loading is None else dataclasses.asdict(self.loading),
            "peak": self.peak,
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
            if room.fits:
                verdict = f"{_size(room.free)} free on {room.device}: it fits"
            else:
                verdict = f"{_size(room.usable)} usable ({_size(room.free)} free) on {room.device}: it does not fit"
            lines.append(f"Memory  {_size(self.memory.total)} of {verdict}")
            lines += [f"  {name:<12}{_size(value):>9}" for name, value in dataclasses.asdict(self.memory).items()]
            lines.append(f"  {'Gradient checkpointing is on.' if self.checkpointing else ''}".rstrip())
            lines.append("" if self.loading is None else f"        {self.loading.text()}")
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
    speed = f"{found.step_seconds:.3g} s a step, {with_unit(count(found.tokens_per_second), 'token')}/s"
    if found.seconds is None or found.low is None or found.high is None:
        return [f"Time    {speed}; the number of steps is unknown"]
    span = f"{duration(found.seconds)} ({duration(found.low)} to {duration(found.high)})"
    return [f"Time    {span} for {with_unit(count(found.steps or 0), 'step')}; {speed}"]


def _size(amount: int) -> str:
    return " ".join(size(amount))
