"""What a view knows about a run at one moment; plain values, so that everything behind it can be tested by hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from llf_core.runs.pace import remaining

LIVE = ("created", "starting", "running", "stopping")
STEERABLE = ("starting", "running", "stopping")


@dataclass(frozen=True)
class Number:
    """One key number: `value` as written, its `unit`, and `note`, what it is compared with."""

    label: str
    value: str
    unit: str = ""
    note: str = ""

    def json(self) -> dict[str, str]:
        """For the front end."""
        return {"label": self.label, "value": self.value, "unit": self.unit, "note": self.note}


@dataclass(frozen=True)
class Facts:
    """A run as its folder tells it. Times are Unix seconds, `None` where not known.

    Attributes:
        queue: what a run that waits for its turn waits for, as a sentence.
        receipt: how the first steps of a resumed attempt compare with the log; None where they can't.
        progress: the event `progress` of what is under way before the first step; None where nothing tells.
        phase: the event `phase` of what the trainer is at before its first step; None where nothing tells.
        phase_seconds: how long it has been at it.
        rate: the peak of the learning rate's schedule as it is now.
        held_out: whether there are examples to evaluate on.
        watched: whether there are prompts to be answered.
        events: warnings, findings, answers to requests and errors, in order.
        generates: whether the result writes answers; a reward model scores them.
    """

    id: str
    state: str
    name: str = ""
    about: str = ""
    reason: str | None = None
    step: int = 0
    total: int = 0
    attempt: int = 1
    created: float | None = None
    ended: float | None = None
    heartbeat: float | None = None
    elapsed: float = 0.0
    per_step: float | None = None
    step_seconds: float | None = None
    epoch: float | None = None
    epochs: float | None = None
    resumed_from: int | None = None
    receipt: dict[str, Any] | None = None
    progress: dict[str, Any] | None = None
    phase: dict[str, Any] | None = None
    phase_seconds: float = 0.0
    queue: str = ""
    checkpoints: tuple[int, ...] = ()
    checkpoint_time: float | None = None
    output: str | None = None
    rate: float | None = None
    held_out: bool = False
    watched: bool = False
    generates: bool = True
    numbers: tuple[Number, ...] = ()
    events: tuple[dict[str, Any], ...] = field(default=(), repr=False)

    @property
    def live(self) -> bool:
        """Whether the run can still change by itself."""
        return self.state in LIVE

    @property
    def reach(self) -> int:
        """Right end of the step axis: the planned steps; of a run that has ended, the last one that it made."""
        return self.total if self.live or not self.step else self.step

    @property
    def remaining(self) -> float | None:
        """Seconds to the last planned step, where they can be estimated."""
        return remaining(self.state, self.step, self.total, self.per_step)
