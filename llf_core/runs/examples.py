"""What each example cost whenever it was trained on, and which examples stand out.

Losses fall while a run goes on, so an example is compared with those around it: its excess is its loss less the median
of the examples of the steps nearby.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.runs.jsonl import Tail

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llf_core.runs.folder import RunFolder

NEAR = 10
"""Steps before and after one whose examples it is compared with."""
OUTLIER = 3.5
"""Deviations (1.4826 times the median absolute one) above which an excess is no chance."""
SPREAD = 1.4826
EASY = 0.25
"""Share of the usual loss below which an example that was never seen is suspiciously easy."""
STAYS = 0.97
"""Share of its first loss that an example has kept where nothing of it was learned."""
KINDS = ("hardest", "unlearned", "easy", "odd")


@dataclass(frozen=True)
class Costs:
    """An example and its losses.

    Attributes:
        number: in the prepared training set.
        first: its loss when it was first seen; a mean over its tokens, as all of these.
        last: when it was last seen.
        excess: how much more it cost than others around it, a mean over all times.
        seen: how often.
        tokens: that are learned from.
        step: the step at which it was seen last.
    """

    number: int
    first: float
    last: float
    excess: float
    seen: int
    tokens: int
    step: int

    def json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


class ExampleLosses:
    """Reads `examples.jsonl`; each look costs what is new. Of a step that was made twice the last attempt counts.

    Args:
        folder: the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._tail = Tail(folder.examples)
        self._steps: dict[int, tuple[int, list[int], list[float], list[int]]] = {}

    def look(self) -> bool:
        """Reads what is new; whether there was something."""
        data, again = self._tail.read()
        if again:
            self._steps.clear()
        for line in data.splitlines():
            self._take(line)
        return bool(data)

    def _take(self, line: bytes) -> None:
        try:
            record = json.loads(line)
            step, attempt = int(record["step"]), int(record["attempt"])
            numbers, losses, tokens = (list(record[name]) for name in ("number", "loss", "tokens"))
        except (ValueError, TypeError, KeyError, RecursionError):
            return  # a line that is cut, or of a later version
        known = self._steps.get(step)
        if len(numbers) == len(losses) == len(tokens) and (known is None or known[0] <= attempt):
            self._steps[step] = (attempt, numbers, [float(loss) for loss in losses], tokens)

    def __len__(self) -> int:
        return len(self._steps)

    def at(self, step: int) -> list[Costs]:
        """The examples of a step, dearest first; of one that was not written down, none."""
        if step not in self._steps:
            return []
        numbers = set(self._steps[step][1])
        return sorted((one for one in self.all(numbers) if one.number in numbers), key=lambda one: -self._at(step, one))

    def _at(self, step: int, one: Costs) -> float:
        _, numbers, losses, _ = self._steps[step]
        return losses[numbers.index(one.number)]

    def all(self, only: set[int] | None = None) -> list[Costs]:
        """Every example that was seen, or some, by number."""
        if not self._steps:
            return []
        order = sorted(self._steps)
        lengths = [len(self._steps[step][1]) for step in order]
        steps = np.repeat(np.array(order), lengths)
        number, loss, tokens = (
            np.concatenate([np.asarray(self._steps[step][place]) for step in order]) for place in (1, 2, 3)
        )
        excess = loss - np.repeat(_usual([np.asarray(self._steps[step][2]) for step in order]), lengths)
        # Stable: of one example, in the order in which it was seen.
        by_number = np.argsort(number, kind="stable")
        starts = np.flatnonzero(np.diff(number[by_number], prepend=number.min() - 1))
        groups = np.split(by_number, starts[1:])
        return [
            Costs(
                number=int(number[group[0]]),
                first=float(loss[group[0]]),
                last=float(loss[group[-1]]),
                excess=float(np.mean(excess[group])),
                seen=len(group),
                tokens=int(tokens[group[-1]]),
                step=int(steps[group[-1]]),
            )
            for group in groups
            if only is None or int(number[group[0]]) in only
        ]

    def standing_out(self, kind: str) -> list[Costs]:
        """Examples that stand out, those first that do most.

        Args:
            kind: `hardest` (all, by how much more they cost than others), `unlearned` (seen again, and as dear as at
                first), `easy` (cheap when they were first seen), `odd` (so dear that it is no chance: a wrong answer,
                another language, garbage).

        Raises:
            ValueError: an unknown kind.
        """
        if kind not in KINDS:
            raise ValueError(f"There is no kind {kind!r} of examples. Expected one of {', '.join(KINDS)}.")
        everything = [one for one in self.all() if np.isfinite(one.excess)]
        if not everything:
            return []
        dearest = sorted(everything, key=lambda one: -one.excess)
        if kind == "hardest":
            return dearest
        if kind == "unlearned":
            return [one for one in dearest if one.seen > 1 and one.last >= STAYS * one.first and one.excess > 0]
        if kind == "easy":
            usual = float(np.median([one.first for one in everything]))
            return sorted((one for one in everything if one.first < EASY * usual), key=lambda one: one.first)
        excess = np.array([one.excess for one in everything])
        middle = float(np.median(excess))
        spread = SPREAD * float(np.median(np.abs(excess - middle)))
        return [one for one in dearest if one.excess > middle + OUTLIER * max(spread, 1e-9)]


def _usual(losses: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """`[steps]`, the median loss of the examples of each step and of those nearby."""
    if len(losses) <= 2 * NEAR:
        return np.full(len(losses), float(np.median(np.concatenate(losses))))
    return np.array(
        [
            float(np.median(np.concatenate(losses[max(0, place - NEAR) : place + NEAR + 1])))
            for place in range(len(losses))
        ]
    )
