"""Coefficient of the KL penalty: fixed, or adapted to a target."""

from __future__ import annotations

from dataclasses import dataclass

HORIZON = 10_000
"""Completions in which the coefficient changes by a factor of about e^0.2 at most."""
BOUND = 0.2


@dataclass
class KLController:
    """Coefficient β of the KL penalty, fixed or adapted to a target KL divergence of a completion in nats."""

    coefficient: float
    target: float | None

    def update(self, kl: float, answers: int) -> None:
        """Adapt the coefficient to the measured KL divergence of a phase; does nothing without a target.

        `e = clip(KL / KL_target - 1, -0.2, 0.2)`, `β ← β (1 + K e)`: arXiv 1909.08593, section 2.2, where K is 0.1.
        Here K is the number of completions over a horizon of 10,000, as in `AdaptiveKLController` of the authors'
        code (github.com/openai/lm-human-preferences).

        Args:
            kl: KL divergence summed over the tokens of a completion, mean over completions, in nats.
        """
        if self.target is None:
            return
        error = min(max(kl / self.target - 1, -BOUND), BOUND)
        self.coefficient *= 1 + error * answers / HORIZON
