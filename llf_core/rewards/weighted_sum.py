"""Weighted sum of the rewards of a completion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.rewards.call_reward import Completion, Reward


@dataclass
class ScoredCompletion:
    """A completion and its rewards.

    Attributes:
        answered: prompt and completion.
        rewards: value by function; None if one does not apply.
    """

    answered: Completion
    rewards: dict[str, float | None] = field(default_factory=dict)


class WeightedSum:
    """Reward functions with their weights.

    Attributes:
        rewards: the functions.
        names: their names.
    """

    def __init__(self, rewards: Sequence[Reward], weights: Sequence[float]) -> None:
        """Pair functions and weights; both have the same length."""
        self.rewards = tuple(rewards)
        self.names = tuple(reward.name for reward in rewards)
        self._weights = dict(zip(self.names, weights, strict=True))

    def total(self, judged: ScoredCompletion) -> float | None:
        """The weighted sum of a completion's rewards; None if no function applies."""
        given = {name: value for name, value in judged.rewards.items() if value is not None}
        return float(sum(self._weights[name] * value for name, value in given.items())) if given else None


def unscored_message(left: int, of: int) -> str:
    """Message about completions to which no reward function applies.

    Args:
        left: number of these completions.
        of: number of all completions.
    """
    return f"All reward functions returned None for {left} of {of} completions. These are not trained on."


def fix_message(name: str) -> str:
    """How to continue after a reward function failed."""
    return f"Fix the function, then resume with run.resume(rewards=[{name}])."
