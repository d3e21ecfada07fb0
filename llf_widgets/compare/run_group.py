"""Groups of runs that Compare draws as one line with a band, such as the runs of one method with several seeds."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np

from llf_core.runs.curves import line
from llf_widgets.compare.labels import labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_widgets.monitor.run_tracker import RunTracker


@dataclass(frozen=True)
class RunGroup:
    """Runs that are shown as one column and one line: at least one, already read."""

    label: str
    trackers: tuple[RunTracker, ...]

    @property
    def id(self) -> str:
        """Id of its first run."""
        return self.trackers[0].snapshot.id

    @property
    def state(self) -> str:
        """The state of its runs; if they differ, of the first one that has not ended."""
        states = [tracker.snapshot.state for tracker in self.trackers]
        live = (tracker.snapshot.state for tracker in self.trackers if tracker.snapshot.live)
        return states[0] if len(set(states)) == 1 else next(live, states[0])

    @property
    def has_finding(self) -> bool:
        """Whether the curves of a finished run speak against its result."""
        return any(tracker.snapshot.finding for tracker in self.trackers)

    @property
    def status_text(self) -> str:
        """The states in words: `2 finished, 1 running`."""
        states = [tracker.snapshot.state for tracker in self.trackers]
        found = list(dict.fromkeys(states))
        return states[0] if len(found) == 1 else ", ".join(f"{states.count(one)} {one}" for one in found)


def named_groups(members: Sequence[tuple[str, Sequence[RunTracker]]]) -> list[RunGroup]:
    """Make groups of labels and runs; empty labels become what distinguishes their first runs."""
    unnamed = iter(labels([trackers[0] for label, trackers in members if not label]))
    return [RunGroup(label or next(unnamed), tuple(trackers)) for label, trackers in members]


def common_steps(
    trackers: Sequence[RunTracker], name: str, *, smoothed: bool = False
) -> tuple[tuple[RunTracker, ...], np.ndarray, np.ndarray]:
    """The values of a metric at the steps that all runs have, so that every mean is of the same runs.

    Returns:
        The runs that have the metric; steps `[n]`, int64; values `[runs, n]`, float64. Without such a run, and where
        they have no step in common, n is 0.
    """
    found = tuple(tracker for tracker in trackers if line(tracker.series, name)[0].size)
    if not found:
        return (), np.empty(0, np.int64), np.empty((0, 0))
    lines = [line(tracker.series, name) for tracker in found]
    steps = reduce(np.intersect1d, (steps for steps, _ in lines))
    values = [
        (tracker.smoothed.get(name, logged) if smoothed else logged)[np.searchsorted(own, steps)]
        for tracker, (own, logged) in zip(found, lines, strict=True)
    ]
    return found, steps, np.stack(values)
