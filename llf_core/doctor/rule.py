"""A rule of the doctor, and the stages that it holds for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.doctor.finding import Finding
    from llf_core.doctor.run_metrics import RunMetrics

LIKELIHOOD = ("sft", "pt", "kd")
"""Stages whose loss is that of tokens: it falls, and never to 0."""
PREFERENCE = ("dpo", "rm", "kto")
"""Stages whose loss is that of answers: it falls, and may fall to 0."""
SAMPLED = ("ppo", "grpo", "rloo")
"""Stages that write answers themselves: their loss says nothing, their reward does."""


@dataclass(frozen=True)
class Rule:
    """A thing that may be wrong.

    Attributes:
        name: what its finding is called; several rules may look for the same thing in other stages.
        look: says what is wrong, or None.
        stages: those that it holds for; none for every stage.
    """

    name: str
    look: Callable[[RunMetrics], Finding | None]
    stages: tuple[str, ...] = ()

    def holds(self, stage: str) -> bool:
        """Whether it says something about a stage."""
        return not self.stages or stage in self.stages
