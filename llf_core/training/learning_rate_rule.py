"""Rule that chooses a learning rate from short branches. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llf_core.config.number_format import with_unit
from llf_core.runs.formatting import rate

if TYPE_CHECKING:
    from collections.abc import Sequence

DIVERGED = 2.0
"""A branch has diverged if its loss is this multiple of the untrained model's loss on the same batches."""
RECENT = 3
"""Steps whose mean loss decides whether a branch has diverged."""
SHARE = 3
"""The last third of the steps is measured."""
BELOW_DIVERGED = 3.0
"""A proposed rate is at most the lowest rate that diverged, divided by this."""
SOURCE = (
    "Rule: learning rate range test (Smith, arXiv 1506.01186, section 3.3) with the one-standard-error rule "
    "(Breiman et al., 1984)."
)


@dataclass(frozen=True)
class Branch:
    """Losses of one learning rate (`losses`, fewer if stopped), and of the untrained model on the same batches."""

    rate: float
    losses: tuple[float, ...]
    untrained: tuple[float, ...]

    @property
    def diverged(self) -> bool:
        """Whether the branch was stopped, see `has_diverged`."""
        return has_diverged(self.losses, self.untrained)

    @property
    def loss(self) -> float:
        """Mean loss of the last third of the steps (at least three, or all); NaN if the branch diverged."""
        return math.nan if self.diverged else float(np.mean(_measured(self.losses)))

    @property
    def change(self) -> float:
        """Mean difference of the measured steps from the untrained model's loss; NaN if the branch diverged."""
        return math.nan if self.diverged else _mean_and_error(self.losses, self.untrained)[0]


@dataclass(frozen=True)
class Proposal:
    """The proposed learning rate, with the reason; None if no rate lowers the loss measurably."""

    rate: float | None
    reason: str
    notes: tuple[str, ...] = ()


def has_diverged(losses: Sequence[float], untrained: Sequence[float]) -> bool:
    """Whether a loss is not finite, or the mean of the last three is twice that of the untrained model or more.

    The factor is this project's choice. Fewer than three finite losses have not diverged, nor have any if the
    untrained model's mean is not above 0.
    """
    if not all(math.isfinite(loss) for loss in losses):
        return True
    if len(losses) < RECENT:
        return False
    now = slice(len(losses) - RECENT, len(losses))
    start = float(np.mean(untrained[now]))
    return start > 0 and float(np.mean(losses[now])) >= DIVERGED * start


def propose(branches: Sequence[Branch]) -> Proposal:
    """Propose the smallest rate whose loss is no worse than the lowest one within a standard error.

    The rate is at most a third of the lowest rate that diverged. No rate if every rate that is low enough diverges,
    or if none lowers the loss by more than two standard errors (a choice of this project).

    Range test: Smith, arXiv 1506.01186, section 3.3, which takes a third or a quarter of the rate at which the loss
    rises. One-standard-error rule: Breiman et al., Classification and Regression Trees, 1984, section 3.4.3.

    Args:
        branches: one for each rate, with equal batches of at least two steps; at least one.
    """
    ordered = sorted(branches, key=lambda one: one.rate)
    steps = with_unit(len(ordered[0].untrained), "step")
    limit = min((one.rate for one in ordered if one.diverged), default=math.inf)
    usable = [one for one in ordered if not one.diverged and one.rate * BELOW_DIVERGED <= limit * (1 + 1e-9)]
    if not usable:
        return Proposal(None, f"The loss diverges at {rate(limit)} and above. Try lower learning rates.")
    best = min(usable, key=lambda one: one.change)
    change, error = _mean_and_error(best.losses, best.untrained)
    if change + 2 * error >= 0:
        return Proposal(
            None,
            f"No learning rate lowers the loss measurably within {steps}. Try more steps, or higher learning rates.",
        )
    chosen = next(one for one in usable if _no_worse(one, best))
    if chosen is best:
        reason = f"{rate(chosen.rate)} has the lowest loss after {steps}"
    else:
        reason = (
            f"{rate(chosen.rate)} is the smallest learning rate whose loss after {steps} is within a standard error of "
            f"the lowest one, of {rate(best.rate)}"
        )
    if limit < math.inf:
        reason += f"; the loss diverges at {rate(limit)}"
    return Proposal(chosen.rate, f"{reason}.", _notes(ordered, chosen, best, limit))


def _notes(ordered: Sequence[Branch], chosen: Branch, best: Branch, limit: float) -> tuple[str, ...]:
    steps = with_unit(len(chosen.untrained), "step")
    notes = [
        SOURCE,
        f"It holds for this batch size, method and data, and for {steps}: a longer run may need a lower one.",
    ]
    if best is ordered[-1] and limit == math.inf:
        notes.append(f"No rate diverged, and the highest one ({rate(best.rate)}) is the best. Try higher ones too.")
    if chosen is ordered[0]:
        notes.append(f"It is the lowest rate that was tried ({rate(chosen.rate)}). Try lower ones too.")
    return tuple(notes)


def _no_worse(one: Branch, best: Branch) -> bool:
    """Whether the loss of a branch is at most a standard error of the difference above the lowest one."""
    mean, error = _mean_and_error(one.losses, best.losses)
    return mean <= error


def _mean_and_error(losses: Sequence[float], others: Sequence[float]) -> tuple[float, float]:
    """Mean difference of the measured steps, and its standard error over the batches."""
    apart = _measured(losses) - _measured(others)
    return float(apart.mean()), float(apart.std(ddof=1)) / math.sqrt(len(apart))


def _measured(losses: Sequence[float]) -> np.ndarray:
    return np.asarray(losses[-max(RECENT, len(losses) // SHARE) :], dtype=np.float64)
