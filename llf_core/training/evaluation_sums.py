"""Sums of an evaluation, from which its metrics follow, also those of several data sets together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from llf_core.config.rules.evaluation import ACCURACY
from llf_core.metrics.interval import ratio_interval, share_interval
from llf_core.runs.charts import HIGH, LOW

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_core.metrics.interval import Interval


@dataclass(frozen=True)
class EvaluationSums:
    """Sums over the examples of one or several data sets, on all ranks.

    Attributes:
        loss: sum of the losses, and number of tokens (pairs, completions).
        measures: by name, sum and number of the values of a stage's metric.
        accuracy: of each example its correct tokens and its tokens in the loss; empty without `compute_accuracy`.
        examples: of each example the sum of its losses, and the number of its tokens in the loss (1 of a pair or a
            completion); empty if the stage records none.
    """

    loss: tuple[float, float]
    measures: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    accuracy: Sequence[Sequence[float]] = ()
    examples: Sequence[Sequence[float]] = ()

    def means(self, differences: Mapping[str, tuple[str, str]]) -> dict[str, float]:
        """Means of the stage's metrics by name, without undefined ones, and the differences of two of them."""
        means = {name: total / count for name, (total, count) in self.measures.items() if count}
        for name, parts in differences.items():
            one, other = (means.get(part) for part in parts)
            if one is not None and other is not None:
                means[name] = one - other
        return means

    def metrics(self, differences: Mapping[str, tuple[str, str]]) -> dict[str, float]:
        """All metrics by name: `loss`, the stage's, and `accuracy` (0 to 1), loss and accuracy with 95 % intervals.

        The bounds of an interval are `name/low` and `name/high`, see `llf_core.metrics.interval`; they are
        left out if too few examples were recorded, and for a loss that is not finite or not of the recorded
        examples. A stage's own `loss`, such as a mean over the completions that could be scored, replaces the other.
        """
        found = {"loss": self.loss[0] / self.loss[1]} | self.means(differences)
        accuracy = share_interval(np.array(self.accuracy, float))
        if accuracy.value is not None:
            found |= {ACCURACY: accuracy.value} | _bounds(ACCURACY, accuracy)
        return found | ({} if "loss" in self.measures else self._loss_bounds())

    def _loss_bounds(self) -> dict[str, float]:
        """Interval of the mean loss, if it is the mean over the recorded examples."""
        units = sum(count for _, count in self.examples)
        if not self.examples or units != self.loss[1] or not math.isfinite(self.loss[0]):
            return {}
        return _bounds("loss", ratio_interval(np.array(self.examples, float)))


def _bounds(name: str, found: Interval) -> dict[str, float]:
    values = {name + LOW: found.low, name + HIGH: found.high}
    return {name: value for name, value in values.items() if value is not None}


def together(parts: Sequence[EvaluationSums]) -> EvaluationSums:
    """Sums over the examples of several (at least one) data sets or ranks."""
    measures: dict[str, tuple[float, float]] = {}
    for part in parts:
        for name, (total, count) in part.measures.items():
            before = measures.get(name, (0.0, 0.0))
            measures[name] = (before[0] + total, before[1] + count)
    totals, counts = zip(*(part.loss for part in parts), strict=True)
    return EvaluationSums(
        (sum(totals), sum(counts)),
        measures,
        [one for part in parts for one in part.accuracy],
        [one for part in parts for one in part.examples],
    )
