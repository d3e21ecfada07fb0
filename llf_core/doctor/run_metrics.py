from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.config.declaration import StageDeclaration
from llf_core.config.registry import declared

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Line = tuple[NDArray[np.int64], NDArray[np.float64]]

NOTHING: Line = (np.empty(0, np.int64), np.empty(0))


@dataclass(frozen=True)
class RunMetrics:
    """Metrics of a run at one moment.

    Attributes:
        series: (steps `[n]`, values `[n]`) by name, as logged; see `metrics.jsonl`.
        idle: seconds since the doctor first saw this step, or since the last progress within it.
        step_seconds: recent duration of a step; 0 if unknown.
        data: the counts of the event `data`.
        learning_rate: current peak of the schedule; 0 if unknown.
        memory_limit: available bytes, 0 if unknown.
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
    def stage(self) -> StageDeclaration | None:
        """The declaration of the run's stage; None if it is a plug-in that is not installed here."""
        return declared(StageDeclaration).get(str(self.config.get("stage") or "sft"))

    def likelihood(self, prefix: str = "") -> Line:
        """Steps and finite values of the loss, `[n]` each; of the plain likelihood where the loss weights tokens.

        Args:
            prefix: `eval_` for that of the evaluations.
        """
        return self.line(prefix + ("loss" if self.stage is None else self.stage.likelihood_metric(self.config)))

    def line(self, name: str) -> Line:
        """Steps `[n]` int64 and finite values `[n]` float64 of a metric of `metrics.jsonl`; empty if not logged."""
        steps, values = self.series.get(name, NOTHING)
        good = np.isfinite(values)
        return steps[good], values[good]
