"""The result of a forecast, as JSON and as text."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.config.number_format import with_unit
from llf_core.runs.formatting import count, duration, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.estimate.cheaper_changes import Change
    from llf_core.estimate.loading import Loading
    from llf_core.estimate.past_runs import PastRun


@dataclass(frozen=True)
class MemoryParts:
    """Peak memory of a process of a run by part, in bytes.

    Attributes:
        weights: the model's own weights, and those of a frozen second model.
        activations: stored for the backward pass.
        logits: logits, their float32 copy and gradient.
        communication: what one of several processes holds for the others, see `strategies.communication_bytes`.
        workspace: the process itself with its libraries, on a GPU its context.
    """

    weights: int
    adapters: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    communication: int
    workspace: int

    @property
    def total(self) -> int:
        """Sum of all parts, in bytes."""
        return sum(dataclasses.astuple(self))


@dataclass(frozen=True)
class Room:
    """Memory of a device, and what a run needs of it.

    Attributes:
        usable: bytes of `free` without a margin of 10 %.
        needed: bytes that the run needs of it, in training or while its model is quantized, without pages of files that
            the system can drop; 0 where it does not use it.
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
        steps: number of optimizer steps; None if the number of examples is unknown.
        seconds: of all steps, without loading, evaluation and checkpoints; None if the steps are unknown.
        spread: factor between the forecast and either end of the range.
        computed: seconds of a step without waiting for other processes.
        sent: bytes that each of several processes sends in a step.
        sending: seconds that its link takes for them; most may pass while it computes.
    """

    step_seconds: float
    tokens_per_second: float
    steps: int | None
    seconds: float | None
    low: float | None
    high: float | None
    spread: float
    basis: str
    computed: float = 0.0
    sent: int = 0
    sending: float = 0.0


@dataclass(frozen=True)
class StrategyForecast:
    """Memory of a process with a strategy, and bytes that it sends in a step, which takes `sending` seconds."""

    strategy: str
    memory: MemoryParts
    sent: int
    sending: float

    def json(self) -> dict[str, object]:
        """Plain values, the memory with its `total`."""
        return dataclasses.asdict(self) | {"memory": dataclasses.asdict(self.memory) | {"total": self.memory.total}}


@dataclass(frozen=True)
class FitCheck:
    """What is known of a run before it starts.

    Attributes:
        memory: peak memory by part; None for a model or a method whose sizes are unknown.
        rooms: each device of this machine; the one that the run uses first.
        disk: upper bound of the run's bytes on the disk, see `forecast_disk`; None if unknown.
        precision: dtype of the computation, and why, as a part of a sentence.
        basis: sources of the forecast, a sentence each: model, data, device.
        changes: changes that make the run fit, the cheapest first; empty if it fits.
        exact: whether the sizes are the model's own, not those of a typical one.
        state: the run as an entry of the table of past runs, without measured numbers; None if unknown.
        loading: peak while the model is loaded; None where loading needs no more than training, on the same device.
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
    processes: int = 1
    strategies: tuple[StrategyForecast, ...] = ()

    @property
    def peak(self) -> int | None:
        """Peak of the process in bytes, in training or loading; None if unknown.

        It includes the pages of the weight files, without which `fits` is decided.
        """
        if self.memory is None:
            return None
        return max(self.memory.total, 0 if self.loading is None or self.loading.beside else self.loading.total)

    @property
    def fits(self) -> bool | None:
        """Whether memory and disk are enough; None if the memory is unknown. A disk usage that is unknown fits."""
        if self.memory is None:
            return None
        return self.rooms[0].fits and (self.disk is None or self.disk <= self.disk_free)

    def json(self) -> dict[str, object]:
        """Plain values, for `llf estimate --json` and the form. Sizes are bytes, times seconds.

        Returns:
            `fits`, `exact`, `precision`, `gradient_checkpointing`, `basis`; `memory` by part with its `total`, or None;
            `loading`: its `total` with what is `mapped`, or None; the `peak` of both; `devices` with their free memory;
            `disk`: what is `needed` and `free`; `time` of a run, or None; the `changes` that would lower the memory;
            and of several `processes` the memory by part and what each sends, by strategy in `strategies`.
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
            "processes": self.processes,
            "strategies": [one.json() for one in self.strategies],
        }

    def text(self) -> str:
        """Lines for a terminal."""
        lines = []
        if self.memory is None:
            lines.append("Memory  unknown")
        else:
            room = self.rooms[0]
            if room.fits:
                verdict = f"{_size(room.free)} free on {room.device}: it fits"
            else:
                verdict = f"{_size(room.usable)} usable ({_size(room.free)} free) on {room.device}: it does not fit"
            each = f" in each of {self.processes:,} processes;" if self.processes > 1 else " of"
            lines.append(f"Memory  {_size(self.memory.total)}{each} {verdict}")
            lines += [f"  {name:<14}{_size(value):>9}" for name, value in dataclasses.asdict(self.memory).items()]
            lines.append(f"  {'Gradient checkpointing is on.' if self.checkpointing else ''}".rstrip())
            lines.append("" if self.loading is None else f"        {self.loading.text()}")
        lines += [f"        {room.device}: {_size(room.free)} free of {_size(room.total)}" for room in self.rooms[1:]]
        written = "unknown" if self.disk is None else _size(self.disk)
        lines.append(f"Disk    {written} of {_size(self.disk_free)} free")
        lines += [*_time_lines(self.duration), *self._strategy_lines()]
        lines += [f"        {sentence}" for sentence in self.basis]
        if self.memory is not None and not self.rooms[0].fits and not self.changes:
            lines.append("No change of the settings makes it fit on this device. Expected a smaller model.")
        if self.changes:
            lines.append("Changes that make it fit, the cheapest first:")
            lines += [f"  {change.text()}" for change in self.changes]
        return "\n".join(line for line in lines if line.strip())

    def _strategy_lines(self) -> list[str]:
        """A table of what each strategy takes of a process."""
        if not self.strategies:
            return []
        columns = ("weights", "gradients", "optimizer", "communication", "total")
        lines = [f"{'Strategy':<10}{''.join(f'{name:>14}' for name in columns)}  sent in a step"]
        for one in self.strategies:
            parts = dataclasses.asdict(one.memory) | {"total": one.memory.total}
            sizes = "".join(f"{_size(parts[name]):>14}" for name in columns)
            lines.append(f"  {one.strategy:<8}{sizes}  {_size(one.sent)} in {one.sending:.3g} s")
        return lines


def _time_lines(found: Duration | None) -> list[str]:
    if found is None:
        return ["Time    unknown"]
    speed = f"{found.step_seconds:.3g} s a step, {with_unit(count(found.tokens_per_second), 'token')}/s"
    if found.sent:
        waiting = found.step_seconds - found.computed
        speed += (
            f"; {waiting:.2g} s of it waiting for {_size(found.sent)} to be sent, which takes {found.sending:.2g} s"
        )
    if found.seconds is None or found.low is None or found.high is None:
        return [f"Time    {speed}; the number of steps is unknown"]
    span = f"{duration(found.seconds)} ({duration(found.low)} to {duration(found.high)})"
    return [f"Time    {span} for {with_unit(count(found.steps or 0), 'step')}; {speed}"]


def _size(amount: int) -> str:
    return " ".join(size(amount))


def places_table(found: Sequence[FitCheck]) -> str:
    """Forecasts of one config for several places, as a table for a terminal."""
    rows = [("place", "memory", "usable", "fits", "step", "tokens/s", "waiting")]
    for one in found:
        room, time = one.rooms[0], one.duration
        place = f"{one.processes} x {room.device}"
        fits = "unknown" if one.memory is None else "yes" if room.fits else "no"
        needed = "unknown" if one.memory is None else _size(one.peak or 0)
        speed = ("unknown",) * 3
        if time is not None:
            waiting = f"{(time.step_seconds - time.computed) / time.step_seconds:.0%}"
            speed = (f"{time.step_seconds:.3g} s", count(time.tokens_per_second), waiting)
        rows.append((place, needed, _size(room.usable), fits, *speed))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )
