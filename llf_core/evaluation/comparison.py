"""Compares two stored results on the same examples. No torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.config.declaration import MetricDeclaration
from llf_core.config.registry import declared
from llf_core.evaluation.measures import LOSS_MEASURES, measure_of_metric, measure_of_scores
from llf_core.metrics import Metric, load_metrics
from llf_core.metrics.paired import difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.evaluation.measures import StoredMeasure
    from llf_core.metrics.paired import Difference
    from llf_core.runs.evaluations import EvaluationResult, ExampleResult, MetricValue


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
