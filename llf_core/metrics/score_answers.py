"""Scores answers by a metric and validates the result."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llf_core.metrics.base_metric import MetricError
from llf_core.user_functions.results import number_or_none, raised, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.metrics.base_metric import Metric, ScoredExample
    from llf_core.metrics.measure import Numbers


@dataclass(frozen=True)
class MetricScores:
    """Scores of answers by one metric (None where it does not apply), and statistics `[answers, statistics]`."""

    scores: tuple[float | None, ...]
    statistics: Numbers
    value: float | None
    count: int


def score_answers(metric: Metric, answers: Sequence[str], examples: Sequence[ScoredExample]) -> MetricScores:
    """Score answers and check the result. A metric that needs a reference skips examples without one.

    Raises:
        MetricError: the metric raised an error, or returned NaN, another type or shape, or another number of scores.
        ValueError: the numbers of answers and examples differ.
    """
    if len(answers) != len(examples):
        raise ValueError(f"There are {len(answers)} answers and {len(examples)} examples. Expected as many.")
    needs = metric.declaration.needs_reference
    places = [place for place, one in enumerate(examples) if one.reference is not None or not needs]
    own_answers, own_examples = [answers[place] for place in places], [examples[place] for place in places]
    try:
        found = metric.scores(own_answers, own_examples) if places else []
    except MetricError:
        raise
    except Exception as error:
        raise _error(metric, raised(error)) from error
    scores = _checked(metric, found, own_answers)
    try:
        statistics = np.asarray(metric.statistics(own_answers, own_examples, scores), float)
        value = float(metric.total(statistics.sum(axis=0))) if places else math.nan
    except MetricError:
        raise
    except Exception as error:
        raise _error(metric, f"{raised(error)} in statistics or total") from error
    if statistics.ndim != 2 or len(statistics) != len(places) or not np.isfinite(statistics).all():  # noqa: PLR2004
        raise _error(
            metric,
            f"returned statistics of shape {list(statistics.shape)} for {len(places)} answers. Expected one row of "
            "finite numbers for each",
        )
    count = sum(one is not None for one in scores)
    if count and not math.isfinite(value):
        raise _error(metric, f"has the value {value} over {count} scores. Expected a finite number")
    every: list[float | None] = [None] * len(answers)
    rows = np.zeros((len(answers), statistics.shape[1]))
    for place, score, row in zip(places, scores, statistics, strict=True):
        every[place], rows[place] = score, row
    return MetricScores(tuple(every), rows, value if count else None, count)


def _checked(metric: Metric, found: object, answers: Sequence[str]) -> list[float | None]:
    found = found.tolist() if hasattr(found, "tolist") else found
    if not isinstance(found, list | tuple) or len(found) != len(answers):
        what = f"{len(found)} values" if isinstance(found, list | tuple) else f"a {type(found).__name__}"
        raise _error(metric, f"returned {what} for {len(answers)} answers. Expected one score for each")
    return [_number(metric, value, answer) for value, answer in zip(found, answers, strict=True)]


def _number(metric: Metric, value: object, answer: str) -> float | None:
    try:
        return number_or_none(value)
    except ValueError as error:
        raise _error(metric, f'{error}, on the answer "{shown(answer)}"') from None


def _error(metric: Metric, what: str) -> MetricError:
    return MetricError(metric.name, f"The metric {metric.name} {what}.")
