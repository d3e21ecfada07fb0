"""Results of runs by their ranking metric."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.runs import summary_numbers
from llf_core.runs.metric_catalog import BETTER_DIRECTION, EVAL_PREFIX, KeyMetric, held_out_label, ranking_metric
from llf_widgets.monitor import formatting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_widgets.monitor.run_tracker import RunTracker


@dataclass(frozen=True)
class RankedMetric:
    """A metric of several runs.

    Attributes:
        metric: the metric.
        held_out: whether a run has validation values; then only these count.
    """

    metric: KeyMetric
    held_out: bool

    @property
    def label(self) -> str:
        """Column heading."""
        if not self.held_out:
            return f"{self.training_label}, last"
        if self.metric.name == "loss":
            return "Evaluation loss, best"
        return f"{held_out_label(self.metric.label)}, {'best' if self.metric.name in BETTER_DIRECTION else 'last'}"

    @property
    def training_label(self) -> str:
        """Label of the training value."""
        return "Training loss" if self.metric.name == "loss" else self.metric.label

    @property
    def higher_is_better(self) -> bool:
        """Whether higher is better."""
        return BETTER_DIRECTION.get(self.metric.name) == "more"

    def best(self, tracker: RunTracker) -> tuple[int, float] | None:
        """Step and value of the best validation value, or the last one if the metric has no better direction."""
        return summary_numbers.best(tracker.series, EVAL_PREFIX + self.metric.name)

    def last(self, tracker: RunTracker) -> float | None:
        """The last training value."""
        return summary_numbers.last(tracker.series, self.metric.name)

    def value(self, tracker: RunTracker) -> float | None:
        """Result of a run; None if unknown or not finite."""
        if not self.held_out:
            last = self.last(tracker)
            return last if last is not None and math.isfinite(last) else None
        found = self.best(tracker)
        return None if found is None else found[1]

    def format(self, value: float) -> str:
        """Format a value."""
        return formatting.value(value, self.metric.form)


def ranked_metric(trackers: Sequence[RunTracker], metric: KeyMetric | None = None) -> RankedMetric:
    """The metric by which runs are ranked.

    Args:
        trackers: the runs, already read.
        metric: another metric.
    """
    names = [name for tracker in trackers for name in tracker.series]
    metric = metric or ranking_metric(names)
    return RankedMetric(metric, EVAL_PREFIX + metric.name in names)
