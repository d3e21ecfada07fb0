"""What the doctor looks at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Line = tuple[NDArray[np.int64], NDArray[np.float64]]

NOTHING: Line = (np.empty(0, np.int64), np.empty(0))


@dataclass(frozen=True)
class RunMetrics:
    """A run at one moment.

    Attributes:
        series: name -> (steps `[n]`, values `[n]`), as logged; see `metrics.jsonl`.
        step: steps made.
        total: steps planned.
        running: whether steps are being made.
        idle: seconds since a step ended, or since the first one was begun.
        step_seconds: what a step took lately; 0 where that is not known.
        config: the flat config.
        data: the event `data`.
        learning_rate: the schedule's peak as it is now.
        memory_limit: bytes that there are, 0 where that is not known.
    """

    series: Mapping[str, Line]
    step: int = 0
    total: int = 0
    running: bool = True
    idle: float = 0.0
    step_seconds: float = 0.0
    config: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    learning_rate: float = 0.0
    memory_limit: float = 0.0

    @property
    def stage(self) -> str:
        """What is minimised."""
        return str(self.config.get("stage") or "sft")

    def line(self, name: str) -> Line:
        """Steps and finite values of a name."""
        steps, values = self.series.get(name, NOTHING)
        good = np.isfinite(values)
        return steps[good], values[good]
