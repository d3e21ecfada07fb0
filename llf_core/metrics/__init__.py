"""Metrics that score generated answers, and what their values say. Imports no torch.

A metric gives one score for each answer, and sufficient statistics from which its value over any set of answers
follows. Intervals and comparisons resample these statistics.
"""

from llf_core.metrics.load import load_metrics
from llf_core.metrics.metric import Metric, MetricError, ScoredExample
from llf_core.metrics.score_answers import MetricScores, score_answers

__all__ = ["Metric", "MetricError", "MetricScores", "ScoredExample", "load_metrics", "score_answers"]
