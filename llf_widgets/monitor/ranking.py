"""The metric by which runs are ranked, and its values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llf_core.runs import curves
from llf_core.runs.charts import (
    EVAL_PREFIX,
    KeyMetric,
    declared_directions,
    held_out_label,
    higher_is_better,
    metric_named,
    ranking_metric,
)
from llf_widgets.monitor import formatting

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llf_widgets.monitor.run_tracker import RunTracker


@dataclass(frozen=True)
class RankedMetric:
    """A metric by which several runs are compared.

    Attributes:
        held_out: whether a run has validation values; then only these count, since training values reward overfitting.
        declared: whether higher is better, by metric, see `metric_catalog.declared_directions`.
    """

    metric: KeyMetric
    held_out: bool
    declared: Mapping[str, bool]

    @property
    def label(self) -> str:
        """Column heading, which says whether values are the best or the last ones."""
        if not self.held_out:
            return f"{self.training_label}, last"
        if self.metric.name == "loss":
            return "Evaluation loss, best"
        return f"{held_out_label(self.metric.label)}, {'last' if self.direction == '' else 'best'}"

    @property
    def training_label(self) -> str:
        """Label of the training value, where both values are shown."""
        return "Training loss" if self.metric.name == "loss" else self.metric.label

    @property
    def higher_is_better(self) -> bool:
        """Whether higher values are better; False for losses and for unknown metrics."""
        return self.direction == "more"

    @property
    def direction(self) -> str:
        """Whether `more` or `less` is better, as the metric declares; empty if nothing declares it."""
        better = higher_is_better(self.metric.name, self.declared)
        return "" if better is None else "more" if better else "less"

    def best(self, tracker: RunTracker) -> tuple[int, float] | None:
        """Step and value of the best finite validation value; of the last one if the metric has no direction."""
        return curves.best(tracker.series, EVAL_PREFIX + self.metric.name, self.declared)

    def last(self, tracker: RunTracker) -> float | None:
        """The last training value, possibly NaN; None if it was never logged."""
        return curves.last(tracker.series, self.metric.name)

    def value(self, tracker: RunTracker) -> float | None:
        """The value by which a run is ranked; None if unknown or not finite."""
        if not self.held_out:
            last = self.last(tracker)
            return last if last is not None and math.isfinite(last) else None
        found = self.best(tracker)
        return None if found is None else found[1]

    def format(self, value: float) -> str:
        """Format a value of the metric."""
        return formatting.value(value, self.metric.form)


def ranked_metric(trackers: Sequence[RunTracker], metric: KeyMetric | None = None) -> RankedMetric:
    """The metric by which all runs are ranked: by default the `metric_for_best_model` that all their configs name.

    Without a common one it depends on what they have logged.
    """
    names = [name for tracker in trackers for name in tracker.series]
    chosen = [tracker.config.get("metric_for_best_model") for tracker in trackers]
    same = bool(chosen) and all(one == chosen[0] for one in chosen)
    name = str(chosen[0]).removeprefix(EVAL_PREFIX) if same else ""
    if metric is None:
        metric = metric_named(name) if name != "loss" and EVAL_PREFIX + name in names else ranking_metric(names)
    declared = {name: better for one in trackers for name, better in declared_directions(one.resolved).items()}
    return RankedMetric(metric, EVAL_PREFIX + metric.name in names, declared)
