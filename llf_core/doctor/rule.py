"""A rule of the doctor, and the stages it applies to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.doctor.finding import Finding
    from llf_core.doctor.run_metrics import RunMetrics

LIKELIHOOD = ("sft", "pt", "kd")
"""Stages with a token-level likelihood loss, which decreases but never to 0."""
PREFERENCE = ("dpo", "rm", "kto")
"""Stages with a preference loss, which may decrease to 0."""
SAMPLED = ("ppo", "grpo", "rloo")
"""Stages that learn from their own completions: their reward matters, not their loss."""


@dataclass(frozen=True)
class Rule:
    """A check for one kind of problem.

    Attributes:
        name: name of its findings; several rules may share one for different stages.
        look: returns a finding or None.
        stages: stages it applies to; empty for all.
    """

    name: str
    look: Callable[[RunMetrics], Finding | None]
    stages: tuple[str, ...] = ()

    def applies_to(self, stage: str) -> bool:
        """Whether the rule applies to a stage."""
        return not self.stages or stage in self.stages
