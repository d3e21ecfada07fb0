"""Loss of each training example at each step, and the examples with unusual losses.

The loss decreases during training, so an example is compared with its neighbors in time: its excess loss is its loss
minus the median over the examples of a window of consecutive steps. A run is divided into equal windows of 21 to 41
steps; one with fewer steps is a single window.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.runs.jsonl import Tail, as_number
from llf_core.untrusted import json_value

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llf_core.runs.folder import RunFolder

NEIGHBOR_STEPS = 10
"""Number of steps before and after the center of a comparison window."""
OUTLIER_DEVIATIONS = 3.5
"""Threshold for outliers, in scaled median absolute deviations (1.4826 MAD)."""
MAD_SCALE = 1.4826
EASY_SHARE = 0.25
"""An unseen example with less than this share of the median loss is suspiciously easy."""
UNLEARNED_SHARE = 0.97
"""An example that keeps at least this share of its first loss was not learned."""
OUTLIER_KINDS = ("hardest", "unlearned", "easy", "odd")


@dataclass(frozen=True)
class ExampleLoss:
    """A training example and its losses, each a mean over its trained tokens.

    Attributes:
        number: position in the prepared training set.
        first: loss when it was first trained on, in nats per token; may be NaN or infinite, as the next two.
        last: loss when it was last trained on, in nats per token.
        excess: mean over all visits of its loss minus the median of its neighbors, in nats per token; NaN where no
            neighbor has a finite loss.
        tokens: number of trained tokens.
    """

    number: int
    first: float
    last: float
    excess: float
    seen: int
    tokens: int
    step: int

    def json(self) -> dict[str, Any]:
        """A JSON object, with null for values that are not finite."""
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in asdict(self).items()
        }


class ExampleLosses:
    """Reads `examples.jsonl` incrementally. For a repeated step the last attempt counts."""

    def __init__(self, folder: RunFolder) -> None:
        self._tail = Tail(folder.examples)
        self._clear()

    def _clear(self) -> None:
        # Attempt and slice of each record; examples of all records are concatenated in arrays.
        self._records: dict[int, tuple[int, int, int]] = {}  # step -> attempt, first, end
        self._number, self._loss, self._tokens = array("q"), array("d"), array("q")

    def refresh(self) -> bool:
        """Read new records, or all if the file was replaced; True if there were new lines, also invalid ones."""
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
            return  # an incomplete line, or one of a newer version
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

    def at(self, step: int) -> list[ExampleLoss]:
        """Examples of a step with losses over all visits, sorted by their loss at this step, NaN or highest first."""
        if step not in self._records:
            return []
        _, first, end = self._records[step]
        then = dict(zip(self._number[first:end], self._loss[first:end], strict=True))
        return sorted(self.all(set(then)), key=lambda one: _sort_key(then[one.number]), reverse=True)

    def all(self, only: set[int] | None = None) -> list[ExampleLoss]:
        """All examples, by number, with losses over all their visits."""
        if not self._records:
            return []
        order = sorted(self._records)
        bounds = np.array([self._records[step][1:] for step in order], np.int64)
        lengths = bounds[:, 1] - bounds[:, 0]
        ends = np.cumsum(lengths)
        # Array positions of the examples in step order; for repeated steps only those of the last attempt.
        places = np.repeat(bounds[:, 0] - (ends - lengths), lengths) + np.arange(int(ends[-1]))
        number, loss, tokens = (np.array(part)[places] for part in (self._number, self._loss, self._tokens))
        steps = np.repeat(np.array(order), lengths)
        excess = loss - np.repeat(_neighbor_medians(loss, ends, lengths), lengths)
        if only is not None:
            kept = np.isin(number, list(only))
            number, loss, tokens, steps, excess = (part[kept] for part in (number, loss, tokens, steps, excess))
        if not len(number):
            return []
        by_number = np.argsort(number, kind="stable")  # visits of one example, in order
        firsts = np.flatnonzero(np.diff(number[by_number], prepend=number.min() - 1))
        return [
            ExampleLoss(
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

    def outliers(self, kind: str) -> list[ExampleLoss]:
        """Examples with unusual losses, most unusual first; without those whose excess loss is not finite.

        Args:
            kind: `hardest` (all examples, by excess loss), `unlearned` (visited again without progress, and with a
                positive excess loss), `easy` (low loss at the first visit), `odd` (loss so high that it is not chance:
                a wrong answer, another language, garbage; a modified z-score above 3.5, as Iglewicz and Hoaglin, How to
                Detect and Handle Outliers, 1993, recommend). The bounds of `unlearned` and `easy`, `UNLEARNED_SHARE`
                and `EASY_SHARE`, are choices of this project.

        Raises:
            ValueError: the kind is unknown.
        """
        if kind not in OUTLIER_KINDS:
            raise ValueError(f"Unknown kind {kind!r}. Expected one of {', '.join(OUTLIER_KINDS)}.")
        everything = [one for one in self.all() if np.isfinite(one.excess)]
        if not everything:
            return []
        by_excess = sorted(everything, key=lambda one: -one.excess)
        if kind == "hardest":
            return by_excess
        if kind == "unlearned":
            return [
                one for one in by_excess if one.seen > 1 and one.last >= UNLEARNED_SHARE * one.first and one.excess > 0
            ]
        if kind == "easy":
            usual = float(np.median([one.first for one in everything]))
            return sorted((one for one in everything if one.first < EASY_SHARE * usual), key=lambda one: one.first)
        excess = np.array([one.excess for one in everything])
        middle = float(np.median(excess))
        spread = MAD_SCALE * float(np.median(np.abs(excess - middle)))
        return [one for one in by_excess if one.excess > middle + OUTLIER_DEVIATIONS * max(spread, 1e-9)]


def _neighbor_medians(
    loss: NDArray[np.float64], ends: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Median loss of the examples in each window of neighboring steps, `[steps]`."""
    usual = np.empty(len(ends))
    groups = max(1, len(ends) // (2 * NEIGHBOR_STEPS + 1))
    for steps in np.array_split(np.arange(len(ends)), groups):
        first = int(ends[steps[0]] - lengths[steps[0]])
        part = loss[first : int(ends[steps[-1]])]
        usual[steps] = np.median(part[np.isfinite(part)]) if np.isfinite(part).any() else np.nan
    return usual


def _loss(value: object) -> float:
    number = as_number(value)
    if number is None:
        raise TypeError(value)
    return number


def _sort_key(loss: float) -> float:
    return math.inf if math.isnan(loss) else loss
