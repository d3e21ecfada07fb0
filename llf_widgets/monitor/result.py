"""What runs came to, by the number that tells them apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from llf_core.runs.measures import BETTER, HELD_OUT, Counted, decides, within
from llf_widgets.monitor import words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_widgets.monitor.watch import Watch

NONE = np.empty(0)


@dataclass(frozen=True)
class Result:
    """A number of several runs.

    Attributes:
        what: the number.
        held_out: whether one of the runs has measured it on held-out examples: then only these count.
    """

    what: Counted
    held_out: bool

    @property
    def label(self) -> str:
        """How a column of it is headed."""
        name = within(self.what.label)
        if self.what.name == "loss":
            return f"Evaluation {name}, best" if self.held_out else f"Training {name}, last"
        which = "best" if self.what.name in BETTER else "last"
        return f"Held-out {name}, {which}" if self.held_out else f"{self.what.label}, last"

    @property
    def more(self) -> bool:
        """Whether more of it is better."""
        return BETTER.get(self.what.name) == "more"

    def best(self, watch: Watch) -> tuple[int, float] | None:
        """Step and value where it was best on held-out examples, or last where more is neither better nor worse."""
        steps, values = watch.series.get(HELD_OUT + self.what.name, (NONE, NONE))
        good = np.flatnonzero(np.isfinite(values))
        if not good.size:
            return None
        place = good[-1]
        if self.what.name in BETTER:
            place = good[np.argmax(values[good]) if self.more else np.argmin(values[good])]
        return int(steps[place]), float(values[place])

    def last(self, watch: Watch) -> float | None:
        """The last value of the training, smoothed."""
        values = watch.smoothed.get(self.what.name, NONE)
        finite = values[np.isfinite(values)]
        return float(finite[-1]) if finite.size else None

    def value(self, watch: Watch) -> float | None:
        """What a run came to."""
        if not self.held_out:
            return self.last(watch)
        found = self.best(watch)
        return None if found is None else found[1]

    def write(self, value: float) -> str:
        """The value as text."""
        return words.value(value, self.what.form, 4)


def result(watches: Sequence[Watch], what: Counted | None = None) -> Result:
    """What runs are told apart by.

    Args:
        watches: the runs, each looked at.
        what: that number, in place of the one that tells most.
    """
    names = [name for watch in watches for name in watch.series]
    what = what or decides(names)
    return Result(what, HELD_OUT + what.name in names)
