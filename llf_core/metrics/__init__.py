"""Metrics of generated answers, their intervals and comparisons. Imports no torch.

A metric gives one score for each answer, and sufficient statistics whose sum gives its value over a set of answers.
Intervals and comparisons resample these statistics.
"""

from llf_core.metrics.base_metric import Metric, MetricError, ScoredExample
from llf_core.metrics.decorator import METRICS, metric
from llf_core.metrics.load import MetricScores, load_metrics, metric_sources, score_answers

__all__ = [
    "METRICS",
    "Metric",
    "MetricError",
    "MetricScores",
    "ScoredExample",
    "load_metrics",
    "metric",
    "metric_sources",
    "score_answers",
]
