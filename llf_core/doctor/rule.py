"""Rules of the doctor: the metrics that a rule reads, its finding, and the stages that it applies to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.config.declaration import StageDeclaration
from llf_core.config.registry import declared

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from llf_core.config.declaration import LossKind

    Line = tuple[NDArray[np.int64], NDArray[np.float64]]
    Stages = Callable[[StageDeclaration], bool]

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


@dataclass(frozen=True)
class Finding:
    """A problem of a run.

    Attributes:
        rule: name of the rule; each rule is reported once per attempt.
        change: for the live run, see `llf_core.runs.control.check_changes`.
        config: for the next run's config.
        until: step from which on it no longer applies; None if it stays.
        outcome: what it says of the result if the run ends now, in sentences.
    """

    rule: str
    message: str
    fix: str
    change: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    until: int | None = None
    outcome: str = ""

    def event(self) -> dict[str, Any]:
        """Fields of the `finding` event: `rule`, `message`, `fix`; `change`, `config` and `until` where not empty."""
        optional = {"change": self.change, "config": self.config, "until": self.until}
        more = {name: value for name, value in optional.items() if value}
        return {"rule": self.rule, "message": self.message, "fix": self.fix, **more}


def with_loss(*kinds: LossKind) -> Stages:
    """Select the stages with one of these values of `StageDeclaration.loss_kind`, as the `stages` of a `Rule`."""
    return lambda stage: stage.loss_kind in kinds


def ranks_pairs(stage: StageDeclaration) -> bool:
    """Whether a stage logs the accuracy of preferences."""
    return stage.data_kind == "pairs"


def compares_pairs(stage: StageDeclaration) -> bool:
    """Whether a stage ranks pairs by log-probabilities relative to a reference model."""
    return ranks_pairs(stage) and stage.compares


def samples_groups(stage: StageDeclaration) -> bool:
    """Whether a stage samples a group of completions for each prompt: its KL is averaged per token."""
    return stage.samples_groups


def samples_one(stage: StageDeclaration) -> bool:
    """Whether a stage samples one completion for each prompt: its KL is summed over a completion."""
    return stage.loss_kind == "reward" and not stage.samples_groups


@dataclass(frozen=True)
class Rule:
    """A check for one kind of problem.

    Attributes:
        name: name of its findings; several rules may share one for different stages.
        stages: whether the rule applies to a stage; None for all.
    """

    name: str
    look: Callable[[RunMetrics], Finding | None]
    stages: Stages | None = None

    def applies_to(self, stage: StageDeclaration | None) -> bool:
        """Whether the rule applies to a stage; None for a stage that is not installed here."""
        return self.stages is None or (stage is not None and self.stages(stage))
