"""Metrics that score generated answers, and what their values say. Imports no torch.

A metric gives one score for each answer, and sufficient statistics from which its value over any set of answers
follows. Intervals and comparisons resample these statistics.
"""

from llf_core.metrics.base_metric import Metric, MetricError, ScoredExample
from llf_core.metrics.decorator import METRICS, metric
from llf_core.metrics.load import load_metrics
from llf_core.metrics.score_answers import MetricScores, score_answers
from llf_core.metrics.stored_functions import metric_sources

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
