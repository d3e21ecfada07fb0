"""Measures computed from the stored examples of an evaluation. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llf_core.metrics import ScoredExample
from llf_core.metrics.interval import interval
from llf_core.metrics.likelihood import BITS_PER_BYTE, LOSS, PERPLEXITY, TOKEN_ACCURACY
from llf_core.metrics.measure import Measure, mean_statistics
from llf_core.runs.evaluations import MetricValue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llf_core.metrics import Metric
    from llf_core.metrics.measure import Numbers
    from llf_core.runs.evaluations import ExampleResult


@dataclass(frozen=True)
class StoredMeasure:
    """A measure by sufficient statistics `[examples, statistics]` of examples; zeros where there are none."""

    measure: Measure
    statistics: Callable[[Sequence[ExampleResult]], Numbers]

    def value(self, examples: Sequence[ExampleResult]) -> MetricValue | None:
        """The value over examples, with its interval and the value of each data set; None if no example has one."""
        statistics, measure = self.statistics(examples), self.measure
        found = interval(statistics, measure)
        if found.value is None:
            return None
        by_source = {}
        for source in dict.fromkeys(one.source for one in examples):
            rows = statistics[[one.source == source for one in examples]]
            if rows.any():
                by_source[source] = float(measure.total(rows.sum(axis=0)))
        return MetricValue(
            measure.name,
            measure.label,
            found.value,
            found.low,
            found.high,
            found.count,
            measure.unit,
            measure.higher_is_better,
            by_source,
        )

    def of_example(self, example: ExampleResult) -> float:
        """NaN if it has none."""
        row = self.statistics([example])[0]
        return float(self.measure.total(row)) if row.any() else math.nan


def _sums(upper: str, lower: str) -> Callable[[Sequence[ExampleResult]], Numbers]:
    """Two sums of each example; zeros where the second is 0 or the loss was not measured."""

    def statistics(examples: Sequence[ExampleResult]) -> Numbers:
        found = [
            (float(getattr(one, upper)), float(getattr(one, lower)))
            if one.nll is not None and getattr(one, lower)
            else (0.0, 0.0)
            for one in examples
        ]
        return np.array(found, float).reshape(-1, 2)

    return statistics


LOSS_MEASURES = (
    StoredMeasure(LOSS, _sums("nll", "tokens")),
    StoredMeasure(PERPLEXITY, _sums("nll", "tokens")),
    StoredMeasure(BITS_PER_BYTE, _sums("nll", "bytes")),
    StoredMeasure(TOKEN_ACCURACY, _sums("correct", "tokens")),
)
"""In the order in which they are shown."""


def measure_of_metric(metric: Metric) -> StoredMeasure:
    """The measure of a metric of generated answers, by its own statistics, such as the counts of n-grams of BLEU."""

    def statistics(examples: Sequence[ExampleResult]) -> Numbers:
        places = [number for number, one in enumerate(examples) if metric.name in one.scores]
        chosen = [examples[number] for number in places]
        rows = metric.statistics(
            [one.answer or "" for one in chosen],
            [ScoredExample(one.prompt, one.reference) for one in chosen],
            [one.scores[metric.name] for one in chosen],
        )
        found = np.zeros((len(examples), rows.shape[1]))
        found[places] = rows
        return found

    return StoredMeasure(metric.measure, statistics)


def measure_of_scores(value: MetricValue) -> StoredMeasure:
    """Mean of the scores of a metric of which no more is known, such as a function of a cell."""

    def statistics(examples: Sequence[ExampleResult]) -> Numbers:
        return mean_statistics([one.scores.get(value.name) for one in examples])

    return StoredMeasure(Measure(value.name, value.label, value.unit, value.higher_is_better), statistics)
