"""What the rewards of an answer come to, whoever has drawn it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.rewards.call_reward import Answered, Reward


@dataclass
class Judged:
    """An answer and its rewards.

    Attributes:
        answered: what was asked and said.
        rewards: by function; None where one does not apply.
    """

    answered: Answered
    rewards: dict[str, float | None] = field(default_factory=dict)


class Weighed:
    """Reward functions with their weights.

    Attributes:
        rewards: the functions.
        names: theirs.
    """

    def __init__(self, rewards: Sequence[Reward], weights: Sequence[float]) -> None:
        """Takes as many weights as functions."""
        self.rewards = tuple(rewards)
        self.names = tuple(reward.name for reward in rewards)
        self._weights = dict(zip(self.names, weights, strict=True))

    def total(self, judged: Judged) -> float | None:
        """The weighted sum of an answer's rewards; None where no function applies."""
        given = {name: value for name, value in judged.rewards.items() if value is not None}
        return float(sum(self._weights[name] * value for name, value in given.items())) if given else None


def not_applied(left: int, of: int) -> str:
    """The sentence that tells of answers which no function judges."""
    return (
        f"No reward function applied to {left} of {of} answers (all gave None). Nothing is learned from such answers."
    )


def to_mend(name: str) -> str:
    """What to do about a function that failed."""
    return f"Mend the function, then go on with run.resume(rewards=[{name}])."
