"""Weighted sum of the rewards of a completion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.rewards.call_reward import Completion, Reward


@dataclass
class ScoredCompletion:
    """A completion and its rewards by function; None where one does not apply."""

    completion: Completion
    rewards: dict[str, float | None] = field(default_factory=dict)


class WeightedSum:
    """Reward functions with their weights."""

    def __init__(self, rewards: Sequence[Reward], weights: Sequence[float]) -> None:
        self.rewards = tuple(rewards)
        self.names = tuple(reward.name for reward in rewards)
        self._weights = dict(zip(self.names, weights, strict=True))

    def total(self, completion: ScoredCompletion) -> float | None:
        """Weighted sum of a completion's rewards over the functions that apply; None if none does."""
        scores = {name: value for name, value in completion.rewards.items() if value is not None}
        return float(sum(self._weights[name] * value for name, value in scores.items())) if scores else None


def unscored_message(unscored: int, total: int) -> str:
    """Warning about completions to which no reward function applies."""
    return f"All reward functions returned None for {unscored} of {total} completions. These are not trained on."


def fix_message(name: str) -> str:
    """Sentence on how to continue after a reward function failed, appended to its error."""
    return f"Fix the function, then resume with run.resume(rewards=[{name}])."
