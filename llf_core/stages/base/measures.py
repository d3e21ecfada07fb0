"""Metrics of a stage beside its loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    Number = Tensor | float


class Measures:
    """Sums and counts by name, for exact means over micro-batches and ranks."""

    def __init__(self) -> None:
        self._pending: list[tuple[str, Number, Number]] = []
        self._committed: dict[str, tuple[Number, Number]] = {}

    def add(self, name: str, total: Number, count: Number) -> None:
        """Add to the sum and the count of a metric, pending until `commit`.

        Detached scalars are not read here, so the step does not wait for the device.
        """
        self._pending.append((name, total, count))

    def rollback(self) -> None:
        """Discard pending sums, since the step is computed again."""
        self._pending.clear()

    def commit(self) -> None:
        """Add the pending sums and counts to the committed ones."""
        for name, total, count in self._pending:
            before = self._committed.get(name, (0, 0))
            self._committed[name] = (before[0] + total, before[1] + count)
        self._pending.clear()

    def take(self) -> dict[str, tuple[float, float]]:
        """Return the committed sums and counts by name and clear them. Reads from the device: call once a log."""
        taken, self._committed = self._committed, {}
        return {name: (float(total), float(count)) for name, (total, count) in taken.items()}
