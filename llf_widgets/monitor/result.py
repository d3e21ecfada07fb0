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

    from llf_widgets.monitor.watch import Watch


@dataclass(frozen=True)
class Result:
    """A metric of several runs.

    Attributes:
        what: the metric.
        held_out: whether a run has validation values; then only these count.
    """

    what: KeyMetric
    held_out: bool

    @property
    def label(self) -> str:
        """Column heading."""
        if not self.held_out:
            return f"{self.training_label}, last"
        if self.what.name == "loss":
            return "Evaluation loss, best"
        return f"{held_out_label(self.what.label)}, {'best' if self.what.name in BETTER_DIRECTION else 'last'}"

    @property
    def training_label(self) -> str:
        """Label of the training value."""
        return "Training loss" if self.what.name == "loss" else self.what.label

    @property
    def more(self) -> bool:
        """Whether higher is better."""
        return BETTER_DIRECTION.get(self.what.name) == "more"

    def best(self, watch: Watch) -> tuple[int, float] | None:
        """Step and value of the best validation value, or the last one if the metric has no better direction."""
        return summary_numbers.best(watch.series, EVAL_PREFIX + self.what.name)

    def last(self, watch: Watch) -> float | None:
        """The last training value."""
        return summary_numbers.last(watch.series, self.what.name)

    def value(self, watch: Watch) -> float | None:
        """Result of a run; None if unknown or not finite."""
        if not self.held_out:
            last = self.last(watch)
            return last if last is not None and math.isfinite(last) else None
        found = self.best(watch)
        return None if found is None else found[1]

    def write(self, value: float) -> str:
        """Format a value."""
        return formatting.value(value, self.what.form)


def result(watches: Sequence[Watch], what: KeyMetric | None = None) -> Result:
    """The metric by which runs are ranked.

    Args:
        watches: the runs, already read.
        what: another metric.
    """
    names = [name for watch in watches for name in watch.series]
    what = what or ranking_metric(names)
    return Result(what, EVAL_PREFIX + what.name in names)
