"""How much it costs a policy to leave its reference."""

from __future__ import annotations

from dataclasses import dataclass

HORIZON = 10_000
"""Answers in which the coefficient changes by a factor of about e^0.2 at most."""
BOUND = 0.2


@dataclass
class KLController:
    """The coefficient of the KL penalty, fixed or led to where the KL meets a target.

    Attributes:
        coefficient: β as it is now.
        target: KL of an answer that is aimed at, in nats; None leaves the coefficient as it is.
    """

    coefficient: float
    target: float | None

    def update(self, kl: float, answers: int) -> None:
        """Takes note of the KL of some answers.

        Args:
            kl: mean over the answers of the KL summed over their tokens, in nats.
            answers: how many there were, on all processes.

        Source:
            `e = clip(KL / KL_target - 1, -0.2, 0.2)`, `β ← β (1 + K e)`: arXiv 1909.08593, section 2.2, with `K` the
            answers over a horizon of 10,000.
        """
        if self.target is None:
            return
        error = min(max(kl / self.target - 1, -BOUND), BOUND)
        self.coefficient *= 1 + error * answers / HORIZON
