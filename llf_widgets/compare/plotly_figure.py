"""One chart of several runs as a Plotly figure, by step, tokens or time: evaluations above, training below.

A group of runs is the mean of its runs with a band from the lowest to the highest of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.runs import decimate
from llf_core.runs.charts import EVAL_PREFIX, Chart, logged_charts, lowercase_label, primary_metric
from llf_core.runs.curves import label as smoothing_label
from llf_core.runs.curves import line
from llf_widgets.compare.labels import common_steps, middle
from llf_widgets.monitor import formatting
from llf_widgets.plotting.plotly_layout import (
    CONFIG,
    DASHED,
    LINE_COLORS,
    MARGIN,
    SOLID,
    TICKS,
    Axes,
    LineEnd,
    base_layout,
    end_labels,
    escape,
    heading,
    last_point,
    maximum_range,
    plain_axis,
    value_range,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.runs.charts import Form
    from llf_widgets.compare.labels import RunGroup
    from llf_widgets.monitor.run_tracker import RunTracker

X_AXES = {"step": "step", "tokens": "tokens", "time": "minutes"}
X_HOVER = {"step": "step %{x:,d}", "tokens": "%{x:,d} tokens", "time": "%{x:.1f} minutes"}
# A dash of its own for each tone: colour is never alone.
SERIES = tuple(zip(LINE_COLORS, (SOLID, DASHED, "2px,2px", "8px,3px,2px,3px"), strict=True))
UPPER, LOWER, WHOLE = (0.58, 1.0), (0.0, 0.42), (0.0, 1.0)
"""Bottom and top of a panel, as shares of the height of all panels."""
HEIGHT, TOP, BOTTOM = 500, 30, 40  # pixels
LABEL_CHARACTERS = 18  # characters of a run's label at the end of its line
LETTER = 6.6  # pixels of a letter of a label
LINE = 14  # pixels between two labels
MAX_POINTS = 1000  # points a line
BAND_OPACITY = 0.18
PAUSE = 20.0
"""A gap of this multiple of the usual time between records counts as a pause, such as between attempts."""


def run_style(number: int) -> tuple[str, str]:
    """Color and dash style of a run's lines; the dash differs too, so that color is never the only difference."""
    tones = len(SERIES)
    return SERIES[number % tones][0], SERIES[(number + number // tones) % tones][1]


def x_values(tracker: RunTracker, steps: np.ndarray, x_axis: str) -> np.ndarray:
    """Convert steps to x values: steps, tokens processed, or minutes of training.

    Pauses, such as between attempts, do not count: a gap is limited to `PAUSE` times the median gap.

    Args:
        steps: `[n]`, int64, ascending.
        x_axis: one of `X_AXES`.

    Returns:
        `[n]` float64: interpolated between logged steps, 0 before the first and constant after the last one; all NaN if
        the run has logged nothing of it.
    """
    if x_axis == "step":
        return steps.astype(float)
    if x_axis == "tokens":
        known, values = line(tracker.series, "tokens")
    else:
        known, moments = tracker.times
        gaps = np.diff(moments, prepend=moments[:1])
        usual = float(np.median(gaps[1:])) if len(gaps) > 1 else 0.0
        values = np.cumsum(np.clip(gaps, 0, PAUSE * usual)) / 60
    if not len(known):
        return np.full(len(steps), np.nan)
    return np.asarray(np.interp(steps, known, values, left=0.0))


@dataclass(frozen=True)
class CurveChoice:
    """A curve that can be displayed."""

    name: str
    label: str
    chart: Chart

    def titles(self) -> tuple[str, str]:
        """Titles of the validation panel and of the training panel."""
        if self.name == "loss":
            return "Evaluation loss", "Training loss"
        title = self.chart.title if len(self.chart.lines) == 1 else f"{self.chart.title}: {self.label}"
        return f"Held out: {lowercase_label(title)}", title


def available_curves(trackers: Sequence[RunTracker]) -> list[CurveChoice]:
    """The curves that any of the runs (already read, at least one) has logged, by chart."""
    names = [primary_metric(trackers[0].series), *(name for tracker in trackers for name in tracker.series)]
    return [CurveChoice(name, label, one.chart) for one in logged_charts(names) for name, label in one.lines.items()]


@dataclass(frozen=True)
class PlottedLine:
    """A line in a panel.

    Attributes:
        number: index of the group.
        x: `[n]` x values, float64, as all values.
        y: `[n]` y values, of several runs their mean; NaN if not finite.
        logged: `[n]` values before smoothing; None if `y` is not smoothed.
        low: `[n]` the lowest values of the runs; None for a line without a band.
        high: `[n]` the highest values; None for a line without a band.
    """

    number: int
    label: str
    x: np.ndarray
    y: np.ndarray
    logged: np.ndarray | None = None
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    runs: int = 1

    @property
    def extent(self) -> list[np.ndarray]:
        """Everything that is drawn of it, `[n]` each."""
        return [one for one in (self.y, self.low, self.high) if one is not None]


def figure_json(
    groups: Sequence[RunGroup],
    *,
    curve: str = "loss",
    x_axis: str = "step",
    log_scale: bool = False,
    show_raw: bool = False,
) -> dict[str, Any]:
    """Build an evaluation panel and a training panel as Plotly JSON with numpy arrays.

    Args:
        groups: the runs, already read and smoothed over the same window.
        curve: the metric; without validation values in any run there is only one panel.
        x_axis: one of `X_AXES`.
        log_scale: logarithmic y axis, if the metric supports it.
        show_raw: show every logged value next to the smoothed line.
    """
    trackers = [tracker for group in groups for tracker in group.trackers]
    choice = next(
        (one for one in available_curves(trackers) if one.name == curve),
        CurveChoice(curve, curve, Chart(curve, "", {curve: curve})),
    )
    window = trackers[0].window
    upper, lower = [], []
    for number, group in enumerate(groups):
        lower.append(_drawn(number, group, curve, x_axis, smoothed=True))
        upper.append(_drawn(number, group, EVAL_PREFIX + curve, x_axis, smoothed=False))
    log_scale = log_scale and choice.chart.log
    held_out, training = choice.titles()
    training_panel = _Panel(TRAINING, training, WHOLE, lower, window)
    panels = [training_panel]
    if any(one.y.size for one in upper):
        panels = [_Panel(EVALUATION, held_out, UPPER, upper, 0), replace(training_panel, domain=LOWER)]
    data = [
        trace
        for panel in panels
        for trace in [*_bands(panel, log_scale=log_scale), *_traces(panel, choice, x_axis, show_raw=show_raw)]
    ]
    return {"data": data, "layout": _layout(panels, choice, x_axis, log_scale=log_scale), "config": CONFIG}


TRAINING, EVALUATION = Axes.numbered(1), Axes.numbered(2)
"""Axes of the panels. Training has the first, since it is always there: a reader's zoom stays with it."""


@dataclass(frozen=True)
class _Panel:
    axes: Axes
    title: str
    domain: tuple[float, float]
    lines: list[PlottedLine]
    window: int  # of steps, where its lines are smoothed

    @property
    def pixels(self) -> float:
        return (self.domain[1] - self.domain[0]) * (HEIGHT - TOP - BOTTOM)


def _drawn(number: int, group: RunGroup, name: str, x_axis: str, *, smoothed: bool) -> PlottedLine:
    """The line of a group, downsampled: where its mean shows every gap, minimum and maximum."""
    runs, known, values = common_steps(group.trackers, name, smoothed=smoothed)
    if not runs:
        return PlottedLine(number, group.label, np.empty(0), np.empty(0), runs=0)
    with np.errstate(invalid="ignore"):  # infinities of several signs
        steps, mean = decimate(known, values.mean(axis=0), MAX_POINTS)
        steps = np.asarray(steps)
        place = np.searchsorted(known, steps)
        logged = common_steps(group.trackers, name)[2].mean(axis=0)[place] if smoothed else None
        x = np.mean([x_values(tracker, steps, x_axis) for tracker in runs], axis=0)
    several = len(runs) > 1
    return PlottedLine(
        number,
        group.label,
        x,
        _finite(np.asarray(mean)),
        logged,
        _finite(values.min(axis=0)[place]) if several else None,
        _finite(values.max(axis=0)[place]) if several else None,
        len(runs),
    )


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)


def _bands(panel: _Panel, *, log_scale: bool) -> list[dict[str, Any]]:
    found = []
    for one in panel.lines:
        if one.low is None or one.high is None:
            continue
        x, y = outline(one.x, one.low, one.high, positive=log_scale and _positive(panel))
        color = run_style(one.number)[0]
        found.append(
            {"type": "scatter", "mode": "lines", "showlegend": False, "hoverinfo": "skip", **panel.axes.trace}
            | {"name": f"{one.label}, range", "x": x, "y": y, "fill": "toself", "line": {"width": 0, "color": color}}
            | {"fillcolor": color.replace("rgb(", "rgba(").replace(")", f", {BAND_OPACITY})")}
        )
    return found


def outline(
    x: np.ndarray, low: np.ndarray, high: np.ndarray, *, positive: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Outline of the area between two lines, which Plotly fills as one trace.

    Args:
        x: `[n]`, ascending.
        low: `[n]` lower line; NaN is a gap.
        high: `[n]` upper line.
        positive: treat values that are not above 0 as gaps, for a logarithmic axis.

    Returns:
        x and y values `[m]`, float64: a polygon for each stretch without a gap, separated by NaN; `[0]` if nothing is
        known at both lines.
    """
    known = np.isfinite(x) & np.isfinite(low) & np.isfinite(high) & ((low > 0) | (not positive))
    places = np.flatnonzero(known)
    pieces = [one for one in np.split(places, np.flatnonzero(np.diff(places) > 1) + 1) if one.size]
    gap = np.array([np.nan])
    xs = [part for one in pieces for part in (x[one], x[one][::-1], gap)]
    ys = [part for one in pieces for part in (high[one], low[one][::-1], gap)]
    return (np.concatenate(xs)[:-1], np.concatenate(ys)[:-1]) if pieces else (np.empty(0), np.empty(0))


def _traces(panel: _Panel, choice: CurveChoice, x_axis: str, *, show_raw: bool) -> list[dict[str, Any]]:
    common = {"type": "scatter", "showlegend": False, "cliponaxis": False, **panel.axes.trace}
    found, form = [], choice.chart.form
    for one in panel.lines:
        color, dash = run_style(one.number)
        style = {"mode": "lines", "line": {"color": color, "width": 1.75, "dash": dash}}
        if not panel.window:
            dots = {"mode": "lines+markers", "marker": {"size": 5, "color": color}}
            style |= dots if panel.axes == EVALUATION else {}
        if show_raw and panel.window and one.logged is not None:
            thin = {"mode": "lines", "opacity": 0.4, "hoverinfo": "skip", "line": {"color": color, "width": 1}}
            values = np.where(np.isfinite(one.logged), one.logged, np.nan)
            found.append(common | thin | {"name": f"{one.label}, every step", "x": one.x, "y": values})
        found.append(common | style | _hover(one, panel, form, x_axis) | {"name": one.label, "x": one.x, "y": one.y})
    return found


def _hover(one: PlottedLine, panel: _Panel, form: Form, x_axis: str) -> dict[str, Any]:
    """The hover text: the value, what was logged before smoothing, and the range of the runs."""
    text = f"{escape(one.label)}<br>{X_HOVER[x_axis]}: %{{customdata[0]}}"
    columns = [[formatting.value(float(value), form) for value in one.y]]
    if panel.window and one.logged is not None:
        text += f", {smoothing_label(panel.window)}<br>logged: %{{customdata[1]}}"
        columns.append([formatting.value(float(value), form) for value in one.logged])
    if one.low is not None and one.high is not None:
        text += f"<br>{one.runs} runs: %{{customdata[{len(columns)}]}}"
        ends = zip(one.low, one.high, strict=True)
        columns.append([" to ".join(formatting.value(float(end), form) for end in pair) for pair in ends])
    return {"customdata": [list(row) for row in zip(*columns, strict=True)], "hovertemplate": f"{text}<extra></extra>"}


def _layout(panels: list[_Panel], choice: CurveChoice, x_axis: str, *, log_scale: bool) -> dict[str, Any]:
    labels_ = [text for panel in panels for text in _end_labels(panel, choice, log_scale=log_scale)]
    longest = max((len(text["text"]) for text in labels_), default=0)
    shape = base_layout(
        HEIGHT,
        [panel.axes.described(panel.title) for panel in panels],
        {"r": 12 + round(LETTER * longest), "t": TOP, "b": BOTTOM},
        uirevision=f"{x_axis}{log_scale}",
    )
    shape["annotations"] = [*map(_title, panels), *labels_]
    axis = plain_axis(nticks=6)
    for panel in panels:
        x, y = panel.axes.layout
        below = {"title": {"text": X_AXES[x_axis], "font": {"size": 11}}} if panel.axes == TRAINING else {}
        form = {"tickformat": "~s" if x_axis == "tokens" else ",d" if x_axis == "step" else ""}
        place = {"domain": WHOLE, "anchor": panel.axes.trace["yaxis"], "rangemode": "tozero"}
        shape[x] = axis | place | form | below
        scale = _log_scale(panel, choice) if log_scale and _positive(panel) else _scale(choice)
        shape[y] = axis | {"domain": panel.domain, "anchor": panel.axes.trace["xaxis"]} | scale
    return shape


def _scale(choice: CurveChoice) -> dict[str, Any]:
    scale = {"type": "linear", "tickformat": TICKS[choice.chart.form], "exponentformat": "e"}
    return scale | maximum_range(choice.chart)


def _log_scale(panel: _Panel, choice: CurveChoice) -> dict[str, Any]:
    ticks, form = log_ticks(*_reach(panel, choice, log_scale=True)), choice.chart.form
    texts = [_tick(value) if form == "number" else formatting.value(value, form) for value in ticks]
    return {"type": "log", "tickmode": "array", "tickvals": ticks, "ticktext": texts}


def _tick(value: float) -> str:
    text = formatting.number(value)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def _positive(panel: _Panel) -> bool:
    return any((one.y > 0).any() for one in panel.lines)


def _reach(panel: _Panel, choice: CurveChoice, *, log_scale: bool) -> tuple[float, float]:
    if not log_scale and choice.chart.maximum is not None:
        return 0.0, MARGIN * choice.chart.maximum
    return value_range([part for one in panel.lines for part in one.extent], positive=log_scale)


def _title(panel: _Panel) -> dict[str, Any]:
    smoothed = f", {smoothing_label(panel.window)}" if panel.window else ""
    return heading(f"<b>{escape(panel.title)}</b>{smoothed}", 0, panel.domain[1], 6)


def _end_labels(panel: _Panel, choice: CurveChoice, *, log_scale: bool) -> list[dict[str, Any]]:
    log_scale = log_scale and _positive(panel)
    scale = math.log10 if log_scale else float
    ends = [
        LineEnd(
            x,
            scale(y),
            f"{middle(one.label, LABEL_CHARACTERS)} {formatting.value(y, choice.chart.form)}",
            run_style(one.number)[0],
        )
        for one in panel.lines
        for x, y in filter(None, [last_point(one.x, one.y)])
        if y > 0 or not log_scale
    ]
    low, high = _reach(panel, choice, log_scale=log_scale)
    return end_labels(ends, panel.axes, panel.pixels, (scale(low), scale(high)), apart=LINE, size=12)


FEWEST, MOST = 3, 6
STEPS: tuple[tuple[int, ...], ...] = ((1,), (1, 3), (1, 2, 5), tuple(range(1, 10)))
"""Multiples of each power of ten, from the fewest ticks to the most."""


def log_ticks(low: float, high: float) -> list[float]:
    """Choose round tick values for a logarithmic axis; Plotly's own are too many or too few for a small range.

    Args:
        low: lower end, above 0.
        high: upper end, not below `low`.

    Returns:
        3 to 6 values in ascending order; for a range so small that the axis is nearly linear, evenly spaced ones, at
        most 12, and fewer than 3 if the ends differ only in their sixth digit.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    every = max(1, -(-(last - first) // MOST))  # of many powers of ten only every n-th
    for steps in STEPS:
        powers = range(first, last + 1, every if steps == (1,) else 1)
        found = [step * 10.0**power for power in powers for step in steps if low <= step * 10.0**power <= high]
        if FEWEST <= len(found) <= MOST:
            return [float(f"{one:.6g}") for one in found]
    return _even(low, high)


def _even(low: float, high: float) -> list[float]:
    span = high - low or abs(high)
    power = 10.0 ** math.floor(math.log10(span / FEWEST))
    step = next(size * power for size in (5, 2, 1, 0.5, 0.2, 0.1) if math.floor(span / (size * power)) >= FEWEST)
    first = math.ceil(low / step)
    places = range(first, math.floor(high / step) + 1)
    return list(dict.fromkeys(float(f"{place * step:.6g}") for place in places))[: 2 * MOST]
