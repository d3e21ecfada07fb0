"""What a stage measures beside its loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    Number = Tensor | float


class Measures:
    """Sums and counts by name, so that any number of parts, on any number of ranks, gives one mean."""

    def __init__(self) -> None:
        self._pending: list[tuple[str, Number, Number]] = []
        self._committed: dict[str, tuple[Number, Number]] = {}

    def add(self, name: str, total: Number, count: Number) -> None:
        """Add to the sum and the count of a metric.

        Args:
            name: of the metric.
            total: sum of the values, a number or a detached scalar.
            count: number of the values, a number or a scalar.
        """
        self._pending.append((name, total, count))

    def rollback(self) -> None:
        """Forgets what was added since `commit`: it is computed again."""
        self._pending.clear()

    def commit(self) -> None:
        """Add the pending sums and counts to the committed ones, once their optimizer step or batch is complete.

        `take` returns committed values only, and `rollback` discards pending ones.
        """
        for name, total, count in self._pending:
            before = self._committed.get(name, (0, 0))
            self._committed[name] = (before[0] + total, before[1] + count)
        self._pending.clear()

    def take(self) -> dict[str, tuple[float, float]]:
        """The committed sums and counts since the last call, by name."""
        taken, self._committed = self._committed, {}
        return {name: (float(total), float(count)) for name, (total, count) in taken.items()}
