"""Checks whether a resumed run reproduces the losses that an earlier attempt logged."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llf_core.runs import RunReader

if TYPE_CHECKING:
    from llf_core.runs import RunFolder, RunWriter

CHECKED = 10
"""Number of steps to compare, a choice of this project."""


class ResumeCheck:
    """Compares the first losses of an attempt with the log, and writes the event `receipt` once.

    Args:
        tolerance: maximum relative difference explained by the device's rounding.
        processes: how many have made the logged steps, and how many repeat them; None for the same number.
    """

    def __init__(
        self,
        folder: RunFolder,
        writer: RunWriter,
        step: int,
        tolerance: float = 0.0,
        processes: tuple[int, int] | None = None,
    ) -> None:
        columns = RunReader(folder).metrics()
        logged = dict(zip(columns.steps("loss").tolist(), columns.values("loss").tolist(), strict=True))
        later = [(made, loss) for made, loss in logged.items() if made > step]
        # A logged loss is the mean since the last log, and a resume begins a new mean.
        self._expected = dict(later[0 if step in logged or step == 0 else 1 :][:CHECKED])
        self._writer = writer
        self._from = step
        self._tolerance = tolerance
        self._processes = processes
        self._distances: list[float] = []

    def compare(self, step: int, loss: float) -> str:
        """Compare the loss of a repeated step with the log; after the last comparable one, write the event `receipt`.

        Returns a sentence if the losses differ by more than the tolerance; else an empty string.
        """
        expected = self._expected.pop(step, None)
        if expected is not None:
            self._distances.append(_distance(float(loss), float(expected)))
        if self._distances and not any(left > step for left in self._expected):
            largest, self._expected = max(self._distances), {}
            count, self._distances = len(self._distances), []
            ranks = {} if self._processes is None else {"processes": list(self._processes)}
            self._writer.event(
                "receipt", from_step=self._from, steps=count, exact=largest == 0, largest=largest, **ranks
            )
            if largest > self._tolerance:
                subject = "The repeated step differs" if count == 1 else f"The first {count} repeated steps differ"
                how = f"by up to {100 * largest:.2g} %" if math.isfinite(largest) else "in which losses are finite"
                dropout = "" if self._processes is None else "other random numbers (dropout), "
                return (
                    f"{subject} from the log {how}: the resumed run is not the one that was "
                    f"stopped. Possible causes: {dropout}other versions, threads or data, or a changed checkpoint."
                )
        return ""


def _distance(loss: float, expected: float) -> float:
    """Relative difference of two losses; infinite if only one of them is finite."""
    if loss.hex() == expected.hex():  # also two that are not finite
        return 0.0
    distance = abs(loss - expected) / max(abs(expected), 1e-12)
    return distance if math.isfinite(distance) else math.inf
