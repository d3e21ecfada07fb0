from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.config.declaration import LossKind, StageDeclaration
    from llf_core.doctor.finding import Finding
    from llf_core.doctor.run_metrics import RunMetrics

    Stages = Callable[[StageDeclaration], bool]


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
