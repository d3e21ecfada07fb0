"""Measures computed from the stored examples of an evaluation, and two results compared on the same. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llf_core.config.declaration import MetricDeclaration
from llf_core.config.registry import declared
from llf_core.metrics import Metric, ScoredExample, load_metrics
from llf_core.metrics.base_metric import BITS_PER_BYTE, LOSS, PERPLEXITY, TOKEN_ACCURACY, Measure, mean_statistics
from llf_core.metrics.interval import interval
from llf_core.metrics.paired import difference
from llf_core.runs.evaluations import MetricValue

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llf_core.metrics.base_metric import Numbers
    from llf_core.metrics.paired import Difference
    from llf_core.runs.evaluations import EvaluationResult, ExampleResult


@dataclass(frozen=True)
class ExamplePair:
    """An example in two results."""

    base: ExampleResult
    tuned: ExampleResult


def comparable(base: EvaluationResult, tuned: EvaluationResult) -> bool:
    """Whether two results could be read and are of the same examples."""
    return not base.problem and not tuned.problem and base.data.fingerprint == tuned.data.fingerprint


def pairs_of(base: Sequence[ExampleResult], tuned: Sequence[ExampleResult]) -> list[ExamplePair]:
    """Pair the examples that two results have in common, in the order of the first."""
    others = {one.key: one for one in tuned}
    return [ExamplePair(one, others[one.key]) for one in base if one.key in others]


def _measure_named(value: MetricValue) -> StoredMeasure:
    """The measure by which a value of a result was computed.

    The mean of the stored scores where the metric has no statistics of its own or is not installed here.
    """
    for measure in LOSS_MEASURES:
        if measure.measure.name == value.name:
            return measure
    for declaration in declared(MetricDeclaration).values():
        if declaration.name == value.name and declaration.load(Metric).statistics is not Metric.statistics:
            return measure_of_metric(load_metrics([value.name])[0])
    return measure_of_scores(value)


def difference_of(value: MetricValue, pairs: Sequence[ExamplePair]) -> Difference:
    """The second result less the first in one metric, with interval and verdict of the paired bootstrap.

    See `llf_core.metrics.paired.difference`. There is at least one pair.
    """
    measure = _measure_named(value)
    return difference(
        measure.statistics([one.base for one in pairs]),
        measure.statistics([one.tuned for one in pairs]),
        measure.measure,
    )


def score_of(example: ExampleResult, name: str) -> float:
    """The value of an example in a metric; NaN without one."""
    for measure in LOSS_MEASURES:
        if measure.measure.name == name:
            return measure.of_example(example)
    return example.scores.get(name, math.nan)


def worst_first(examples: Sequence[ExampleResult], value: MetricValue) -> list[ExampleResult]:
    """Sort examples by a metric, the worst first; those without a value are left out."""
    found = [(score_of(one, value.name), one) for one in examples]
    sign = 1.0 if value.higher_is_better else -1.0
    kept = [pair for pair in found if not math.isnan(pair[0])]
    return [one for _, one in sorted(kept, key=lambda pair: sign * pair[0])]


def most_changed_first(pairs: Sequence[ExamplePair], value: MetricValue) -> list[ExamplePair]:
    """Sort examples by the size of their change in a metric, the largest first; those without a value are left out."""
    found = [(abs(score_of(one.tuned, value.name) - score_of(one.base, value.name)), one) for one in pairs]
    kept = [pair for pair in found if not math.isnan(pair[0])]
    return [one for _, one in sorted(kept, key=lambda pair: -pair[0])]


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
