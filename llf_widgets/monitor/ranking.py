"""The metric by which runs are ranked, and its values."""

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
    """A metric by which several runs are compared.

    Attributes:
        metric: the metric.
        held_out: whether a run has validation values; then only these count, since training values reward overfitting.
    """

    metric: KeyMetric
    held_out: bool

    @property
    def label(self) -> str:
        """Column heading. It says whether values are the best or the last ones, since comparisons use both."""
        if not self.held_out:
            return f"{self.training_label}, last"
        if self.metric.name == "loss":
            return "Evaluation loss, best"
        return f"{held_out_label(self.metric.label)}, {'best' if self.metric.name in BETTER_DIRECTION else 'last'}"

    @property
    def training_label(self) -> str:
        """Label of the training value, where both values are shown and "Loss" alone would not say which it is."""
        return "Training loss" if self.metric.name == "loss" else self.metric.label

    @property
    def higher_is_better(self) -> bool:
        """Whether higher values are better, by which runs are sorted; False for losses and for unknown metrics."""
        return BETTER_DIRECTION.get(self.metric.name) == "more"

    def best(self, tracker: RunTracker) -> tuple[int, float] | None:
        """Step and value of the best validation value, or the last one if the metric has no better direction.

        Of a run that overfits, the best checkpoint counts and not the last one.

        Returns:
            Step and value; None if the run has no finite validation value.
        """
        return summary_numbers.best(tracker.series, EVAL_PREFIX + self.metric.name)

    def last(self, tracker: RunTracker) -> float | None:
        """The last training value, for runs without validation; None if it was never logged. It may be NaN."""
        return summary_numbers.last(tracker.series, self.metric.name)

    def value(self, tracker: RunTracker) -> float | None:
        """The value by which a run is ranked; None if unknown or not finite, so a diverged run never ranks first."""
        if not self.held_out:
            last = self.last(tracker)
            return last if last is not None and math.isfinite(last) else None
        found = self.best(tracker)
        return None if found is None else found[1]

    def format(self, value: float) -> str:
        """Format a value of the metric, as everywhere else in the views."""
        return formatting.value(value, self.metric.form)


def ranked_metric(trackers: Sequence[RunTracker], metric: KeyMetric | None = None) -> RankedMetric:
    """The metric by which runs are ranked: the same for all of them, or the ranking would compare different things.

    Args:
        trackers: the runs, already read.
        metric: another metric; None for the ranking metric of what they logged.
    """
    names = [name for tracker in trackers for name in tracker.series]
    metric = metric or ranking_metric(names)
    return RankedMetric(metric, EVAL_PREFIX + metric.name in names)
