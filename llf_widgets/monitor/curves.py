"""Data of a run's charts: lines with at most 2,000 points, and markers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.runs import decimate
from llf_core.runs.change_journal import parse_change
from llf_core.runs.formatting import rate
from llf_core.runs.metric_catalog import EVAL_PREFIX, UNGROUPED, LoggedGroup, logged_groups, primary_metric

if TYPE_CHECKING:
    from collections.abc import Mapping

    Line = tuple[np.ndarray, np.ndarray]

LIMIT = 2000  # points a trace
MACHINE = ("learning_rate", "grad_norm", "tokens_per_second", "memory")
"""Metrics that every run logs, shown in small charts."""
WORTH_A_CLICK = 3  # groups that are left out where they are not asked for
NOTHING = (np.empty(0, dtype=np.int64), np.empty(0))


@dataclass(frozen=True)
class Curves:
    """Lines by name as (steps `[n]`, values `[n]`), n at most `LIMIT`; NaN if a logged value is not finite.

    Args:
        window: smoothing window in steps; 0 for none.
        last: last logged value of each metric, exact, possibly not finite; memory in bytes.
        lines: logged values; memory in GB. The primary metric and those of the small charts are always included.
        smooth: smoothed values of grouped metrics.
        main: group of the primary metric, shown in the large chart.
        groups: the other groups, one chart each.
        left_out: titles of diagnostic groups that are not drawn.
        planned: future learning rates, from the last logged one on.
        kept: steps of existing checkpoints.
        best: step of the best checkpoint, or empty.
        marks: (step, label) of every resume and live change.
        broken: steps at which the primary metric was not finite, at most `LIMIT`.
        broken_count: total number of these steps.
    """

    window: int
    last: Mapping[str, float]
    lines: Mapping[str, Line]
    smooth: Mapping[str, Line]
    main: LoggedGroup
    groups: tuple[LoggedGroup, ...]
    left_out: tuple[str, ...]
    planned: Line
    kept: np.ndarray
    best: np.ndarray
    marks: list[tuple[int, str]]
    broken: np.ndarray
    broken_count: int

    @property
    def lead(self) -> str:
        """Name of the primary metric."""
        return next(iter(self.main.lines))

    @property
    def points(self) -> int:
        """Number of points of the longest line, which determines the cost of drawing."""
        return max((x.size for x, _ in self.lines.values()), default=0)

    def line(self, name: str) -> Line:
        """A line as logged, `[n]` steps and values; empty if there is none."""
        return self.lines.get(name, NOTHING)

    def held_out(self, name: str) -> bool:
        """Whether a metric was also computed on validation examples."""
        return EVAL_PREFIX + name in self.lines


def curves(  # noqa: PLR0913 - what stands beside the lines
    series: Mapping[str, Line],
    smoothed: Mapping[str, np.ndarray],
    *,
    window: int = 0,
    kept: tuple[int, ...] = (),
    best: int | None = None,
    events: tuple[dict[str, Any], ...] = (),
    planned: Line = NOTHING,
    details: bool = True,
) -> Curves:
    """Downsample the metrics of a run for its charts.

    Args:
        series: (steps, values) by name, steps ascending.
        smoothed: smoothed values `[n]`, aligned with the series of that name.
        window: smoothing window in steps.
        kept: steps of complete checkpoints.
        best: step of the best checkpoint.
        events: events of the run, for markers.
        planned: learning rates of the schedule; drawn from the last logged one on.
        details: whether to include diagnostic groups; if there are only a few, they are always included.
    """
    first = primary_metric(series)
    main, *others = sorted(logged_groups([first, *series]), key=lambda one: first not in one.lines)
    aside = [one for one in others if one.group.detail]
    left_out = [] if details or len(aside) < WORTH_A_CLICK else aside
    lines = {name: _thin(*line) for name, line in series.items() if name in MACHINE or name not in UNGROUPED}
    lines |= {name: NOTHING for name in (first, *MACHINE) if name not in lines}
    lines["memory"] = (lines["memory"][0], lines["memory"][1] / 1e9)
    steps, values = series.get(first, NOTHING)
    broken = steps[~np.isfinite(values)]
    marks = np.asarray(kept, dtype=np.int64)
    return Curves(
        window=window,
        last={name: float(values[-1]) for name, (_, values) in series.items() if values.size},
        lines=lines,
        smooth={name: _thin(series[name][0], values) for name, values in smoothed.items() if name in series},
        main=main,
        groups=tuple(one for one in others if one not in left_out),
        left_out=tuple(one.group.title for one in left_out),
        planned=_from_here_on(planned, series.get("learning_rate", NOTHING)),
        kept=marks[marks != best],
        best=marks[marks == best],
        marks=[mark for event in events if (mark := _mark(event)) is not None],
        broken=broken[:: max(1, -(-broken.size // LIMIT))],
        broken_count=int(broken.size),
    )


def _from_here_on(planned: Line, logged: Line) -> Line:
    """The schedule after the last logged step, connected to it."""
    (steps, rates), (at, values) = planned, logged
    later = steps > (at[-1] if at.size else 0)
    if not later.any():
        return NOTHING
    return np.concatenate([at[-1:], steps[later]]), np.concatenate([values[-1:], rates[later]])


def _mark(event: dict[str, Any]) -> tuple[int, str] | None:
    """The marker of an event: a resume, or a live change."""
    if event.get("type") == "resumed" and "attempt" in event and "from_step" in event:
        return event["from_step"], f"attempt {event['attempt']}, from step {event['from_step']}"
    if event.get("type") != "steered" or event.get("again"):
        return None
    change = parse_change(event)
    if change is None:
        return None
    words = {"learning_rate": lambda to: f"learning rate {rate(to)}", "max_steps": lambda to: f"ends at step {to:,}"}
    said = [say(change.changes[name]) for name, say in words.items() if name in change.changes]
    return (change.step, f"{change.step}: {', '.join(said)}") if said else None


def _thin(steps: np.ndarray, values: np.ndarray) -> Line:
    x, y = decimate(steps, values, LIMIT)
    # As float32 a line that does not move stays flat when it is smoothed, and an axis shows no rounding.
    return np.asarray(x), np.where(np.isfinite(y), y, np.nan).astype(np.float32)
