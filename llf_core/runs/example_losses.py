"""What each example cost whenever it was trained on, and which examples stand out.

Losses fall while a run goes on, so an example is compared with those around it: its excess is its loss less the median
of the examples of some twenty steps.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.door import json_value
from llf_core.runs.jsonl import Tail, as_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llf_core.runs.folder import RunFolder

NEAR = 10
"""Steps before and after the middle of those whose examples are compared."""
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
        """As a JSON object; nothing for what is not finite."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


class ExampleLosses:
    """Reads `examples.jsonl`; each look costs what is new. Of a step that was made twice the last attempt counts.

    Args:
        folder: the run.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._tail = Tail(folder.examples)
        self._clear()

    def _clear(self) -> None:
        # Of each record its attempt and where its examples begin; of all examples in a row what they cost.
        self._records: dict[int, tuple[int, int, int]] = {}  # step -> attempt, first, end
        self._number, self._loss, self._tokens = array("q"), array("d"), array("q")

    def look(self) -> bool:
        """Reads what is new; whether there was something."""
        found = False
        for data, again in self._tail.pieces():
            if again:
                self._clear()
            found = found or bool(data)
            for line in data.splitlines():
                self._take(line)
        return found

    def _take(self, line: bytes) -> None:
        try:
            record = json_value(line)
            step, attempt = int(record["step"]), int(record["attempt"])
            numbers, losses, tokens = (record[name] for name in ("number", "loss", "tokens"))
            read = array("q", numbers), array("d", map(_loss, losses)), array("q", tokens)
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return  # a line that is cut, or of a later version
        known = self._records.get(step)
        if len({len(part) for part in read}) > 1 or (known is not None and known[0] > attempt):
            return
        first = len(self._number)
        self._number.extend(read[0])
        self._loss.extend(read[1])
        self._tokens.extend(read[2])
        self._records[step] = (attempt, first, len(self._number))

    def __len__(self) -> int:
        return len(self._records)

    def at(self, step: int) -> list[Costs]:
        """The examples of a step, dearest first; of one that was not written down, none."""
        if step not in self._records:
            return []
        _, first, end = self._records[step]
        then = dict(zip(self._number[first:end], self._loss[first:end], strict=True))
        return sorted(self.all(set(then)), key=lambda one: _dear(then[one.number]), reverse=True)

    def all(self, only: set[int] | None = None) -> list[Costs]:
        """Every example that was seen, or some, by number."""
        if not self._records:
            return []
        order = sorted(self._records)
        bounds = np.array([self._records[step][1:] for step in order], np.int64)
        lengths = bounds[:, 1] - bounds[:, 0]
        ends = np.cumsum(lengths)
        # Where the examples of the steps stand, in the order of the steps; of steps made twice only the last.
        places = np.repeat(bounds[:, 0] - (ends - lengths), lengths) + np.arange(int(ends[-1]))
        number, loss, tokens = (np.array(part)[places] for part in (self._number, self._loss, self._tokens))
        steps = np.repeat(np.array(order), lengths)
        excess = loss - np.repeat(_usual(loss, ends, lengths), lengths)
        if only is not None:
            kept = np.isin(number, list(only))
            number, loss, tokens, steps, excess = (part[kept] for part in (number, loss, tokens, steps, excess))
        if not len(number):
            return []
        by_number = np.argsort(number, kind="stable")  # of one example, in the order in which it was seen
        firsts = np.flatnonzero(np.diff(number[by_number], prepend=number.min() - 1))
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
            for group in np.split(by_number, firsts[1:])
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


def _usual(loss: NDArray[np.float64], ends: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """`[steps]`, the median loss of the examples of each group of steps that stand beside each other."""
    usual = np.empty(len(ends))
    groups = max(1, len(ends) // (2 * NEAR + 1))
    for steps in np.array_split(np.arange(len(ends)), groups):
        first = int(ends[steps[0]] - lengths[steps[0]])
        part = loss[first : int(ends[steps[-1]])]
        usual[steps] = np.median(part[np.isfinite(part)]) if np.isfinite(part).any() else np.nan
    return usual


def _loss(value: Any) -> float:
    number = as_number(value)
    if number is None:
        raise TypeError(value)
    return number


def _dear(loss: float) -> float:
    """For an order: what is no number is dearest of all."""
    return math.inf if math.isnan(loss) else loss
