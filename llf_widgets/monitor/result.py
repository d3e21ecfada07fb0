"""What runs came to, by the number that tells them apart."""

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
    """A number of several runs.

    Attributes:
        what: the number.
        held_out: whether one of the runs has measured it on held-out examples: then only these count.
    """

    what: KeyMetric
    held_out: bool

    @property
    def label(self) -> str:
        """How a column of it is headed."""
        if not self.held_out:
            return f"{self.training_label}, last"
        if self.what.name == "loss":
            return "Evaluation loss, best"
        return f"{held_out_label(self.what.label)}, {'best' if self.what.name in BETTER_DIRECTION else 'last'}"

    @property
    def training_label(self) -> str:
        """What it is called in the training."""
        return "Training loss" if self.what.name == "loss" else self.what.label

    @property
    def more(self) -> bool:
        """Whether more of it is better."""
        return BETTER_DIRECTION.get(self.what.name) == "more"

    def best(self, watch: Watch) -> tuple[int, float] | None:
        """Step and value where it was best on held-out examples, or last where more is neither better nor worse."""
        return summary_numbers.best(watch.series, EVAL_PREFIX + self.what.name)

    def last(self, watch: Watch) -> float | None:
        """The last logged value of the training."""
        return summary_numbers.last(watch.series, self.what.name)

    def value(self, watch: Watch) -> float | None:
        """What a run came to; None where it is not known or not a finite number."""
        if not self.held_out:
            last = self.last(watch)
            return last if last is not None and math.isfinite(last) else None
        found = self.best(watch)
        return None if found is None else found[1]

    def write(self, value: float) -> str:
        """The value as text."""
        return formatting.value(value, self.what.form)


def result(watches: Sequence[Watch], what: KeyMetric | None = None) -> Result:
    """What runs are told apart by.

    Args:
        watches: the runs, each looked at.
        what: that number, in place of the one that tells most.
    """
    names = [name for watch in watches for name in watch.series]
    what = what or ranking_metric(names)
    return Result(what, EVAL_PREFIX + what.name in names)
