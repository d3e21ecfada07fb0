"""What the charts of a run show: lines with at most 2,000 points, and markers."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.runs import decimate
from llf_core.runs.charts import (
    COUNTERS,
    EVAL_PREFIX,
    LOW,
    LoggedChart,
    bottom_charts,
    logged_charts,
    primary_metric,
)
from llf_core.runs.control import parse_change
from llf_core.runs.formatting import rate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Line = tuple[np.ndarray, np.ndarray]

MAX_POINTS = 2000  # points a trace
UNITS: Mapping[str, float] = {"bytes": 1e9}
"""Divisor of the values of a form in charts; 1 for all others."""
MIN_HIDDEN_CHARTS = 3  # charts that are left out where they are not asked for
NOTHING = (np.empty(0, dtype=np.int64), np.empty(0))
NO_PLAN: Mapping[str, Line] = MappingProxyType({})


@dataclass(frozen=True)
class ChartData:
    """Lines by name as (steps `[n]` int64, values `[n]` float32), n at most `MAX_POINTS`; NaN if not finite as float32.

    Args:
        window: smoothing window in steps; 0 for none.
        last: last logged value of each metric, exact, possibly not finite; in bytes where the chart is in GB.
        lines: logged values, in the units of their charts. Those at the top and at the bottom are always included.
        planned: future values by metric, from the last logged one on.
        kept: steps `[n]`, int64, of existing checkpoints except the best one.
        best: step `[1]`, int64, of the best checkpoint; `[0]` if there is none.
        marks: (step, label) of every resume and live change.
        broken: steps `[n]`, int64, at which the primary metric was not finite, n at most `MAX_POINTS`.
    """

    window: int
    last: Mapping[str, float]
    lines: Mapping[str, Line]
    smooth: Mapping[str, Line]
    top: LoggedChart
    middle: tuple[LoggedChart, ...]
    bottom: tuple[LoggedChart, ...]
    left_out: tuple[str, ...]
    planned: Mapping[str, Line]
    kept: np.ndarray
    best: np.ndarray
    marks: list[tuple[int, str]]
    broken: np.ndarray
    broken_count: int

    @property
    def primary(self) -> str:
        """Name of the primary metric, shown in the large chart."""
        return next(iter(self.top.lines))

    @property
    def points(self) -> int:
        """Number of points of the longest line, on which the cost of drawing depends."""
        return max((x.size for x, _ in self.lines.values()), default=0)

    def line(self, name: str) -> Line:
        """A line as logged, steps `[n]` and values `[n]`; `[0]` if there is none."""
        return self.lines.get(name, NOTHING)

    def held_out(self, name: str) -> bool:
        """Whether a metric was also computed on validation examples."""
        return EVAL_PREFIX + name in self.lines

    def has_interval(self, name: str) -> bool:
        """Whether evaluations of a metric have bounds."""
        return EVAL_PREFIX + name + LOW in self.lines


def chart_data(  # noqa: PLR0913 - what stands beside the lines
    series: Mapping[str, Line],
    smoothed: Mapping[str, np.ndarray],
    *,
    window: int = 0,
    kept: tuple[int, ...] = (),
    best: int | None = None,
    events: tuple[dict[str, Any], ...] = (),
    planned: Mapping[str, Line] = NO_PLAN,
    details: bool = True,
) -> ChartData:
    """Downsample the metrics of a run for its charts, with minima, maxima and gaps (`llf_core.runs.decimate`).

    Args:
        series: (steps `[n]` int64, values `[n]` float64) by name, steps ascending.
        smoothed: smoothed values `[n]`, aligned with the series of that name.
        best: step of the best checkpoint; None if there is none.
        planned: future values by metric, such as the schedule's learning rates; drawn from the last logged one on.
        details: whether to include diagnostic charts; if there are only a few, they are always included.
    """
    first = primary_metric(series)
    top, *others = sorted(logged_charts([first, *series]), key=lambda one: first not in one.lines)
    detail_charts = [one for one in others if one.chart.detail]
    left_out = [] if details or len(detail_charts) < MIN_HIDDEN_CHARTS else detail_charts
    bottom = bottom_charts()
    unit = {name: UNITS.get(one.chart.form, 1) for one in (top, *others, *bottom) for name in one.lines}

    def drawn(name: str, line: Line) -> Line:
        return _downsample(line[0], line[1] / unit.get(name.removeprefix(EVAL_PREFIX), 1))

    lines = {name: drawn(name, line) for name, line in series.items() if name not in COUNTERS}
    lines |= {name: NOTHING for one in (top, *bottom) for name in one.lines if name not in lines}
    steps, values = series.get(first, NOTHING)
    broken = steps[~np.isfinite(values)]
    marks = np.asarray(kept, dtype=np.int64)
    return ChartData(
        window=window,
        last={name: float(values[-1]) for name, (_, values) in series.items() if values.size},
        lines=lines,
        smooth={name: drawn(name, (series[name][0], values)) for name, values in smoothed.items() if name in series},
        top=top,
        middle=tuple(one for one in others if one not in left_out),
        bottom=tuple(bottom),
        left_out=tuple(one.chart.title for one in left_out),
        planned={
            name: drawn(name, _after_last_logged(line, series.get(name, NOTHING))) for name, line in planned.items()
        },
        kept=marks[marks != best],
        best=marks[marks == best],
        marks=[mark for event in events if (mark := _mark(event)) is not None],
        broken=broken[:: max(1, -(-broken.size // MAX_POINTS))],
        broken_count=int(broken.size),
    )


def _after_last_logged(planned: Line, logged: Line) -> Line:
    """The plan after the last logged step, connected to it."""
    (steps, later_values), (at, values) = planned, logged
    later = steps > (at[-1] if at.size else 0)
    if not later.any():
        return NOTHING
    return np.concatenate([at[-1:], steps[later]]), np.concatenate([values[-1:], later_values[later]])


def _mark(event: dict[str, Any]) -> tuple[int, str] | None:
    if event.get("type") == "resumed" and "attempt" in event and "from_step" in event:
        return event["from_step"], f"attempt {event['attempt']}, from step {event['from_step']}"
    if event.get("type") != "steered" or event.get("again"):
        return None
    change = parse_change(event)
    if change is None:
        return None
    texts: dict[str, Callable[[Any], str]] = {
        "learning_rate": lambda to: f"learning rate {rate(to)}",
        "max_steps": lambda to: f"ends at step {to:,}",
    }
    changes = [text(change.changes[name]) for name, text in texts.items() if name in change.changes]
    return (change.step, f"{change.step}: {', '.join(changes)}") if changes else None


def _downsample(steps: np.ndarray, values: np.ndarray) -> Line:
    x, y = decimate(steps, values, MAX_POINTS)
    # As float32 a line that does not move stays flat when it is smoothed, and an axis shows no rounding.
    with np.errstate(over="ignore"):
        drawn = np.asarray(y).astype(np.float32)
    return np.asarray(x), np.where(np.isfinite(drawn), drawn, np.float32(np.nan))
