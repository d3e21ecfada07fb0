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
        completion: the completion with its prompt.
        rewards: value by function; None if one does not apply.
    """

    completion: Completion
    rewards: dict[str, float | None] = field(default_factory=dict)


class WeightedSum:
    """Reward functions with their weights.

    Attributes:
        rewards: the functions.
        names: their names.
    """

    def __init__(self, rewards: Sequence[Reward], weights: Sequence[float]) -> None:
        """Pair functions and weights.

        Args:
            rewards: the functions.
            weights: one factor for each function.

        Raises:
            ValueError: the numbers of functions and weights differ.
        """
        self.rewards = tuple(rewards)
        self.names = tuple(reward.name for reward in rewards)
        self._weights = dict(zip(self.names, weights, strict=True))

    def total(self, completion: ScoredCompletion) -> float | None:
        """Weighted sum of a completion's rewards, the reward that the policy is trained on.

        Args:
            completion: the completion with the value of each function.

        Returns:
            The sum over the functions that apply; None if none does, so that the completion is not trained on.

        Raises:
            KeyError: a reward of a function that is not among these.
        """
        scores = {name: value for name, value in completion.rewards.items() if value is not None}
        return float(sum(self._weights[name] * value for name, value in scores.items())) if scores else None


def unscored_message(unscored: int, total: int) -> str:
    """Warning about completions to which no reward function applies, the same for all stages with rewards.

    Args:
        unscored: number of these completions.
        total: number of all completions.
    """
    return f"All reward functions returned None for {unscored} of {total} completions. These are not trained on."


def fix_message(name: str) -> str:
    """Sentence on how to continue after a reward function failed, appended to its error.

    Args:
        name: the function's name.
    """
    return f"Fix the function, then resume with run.resume(rewards=[{name}])."
