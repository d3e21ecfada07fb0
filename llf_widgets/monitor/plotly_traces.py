"""The lines and marks of a run's charts as Plotly traces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.runs import charts
from llf_core.runs.metric_catalog import EVAL_PREFIX, lowercase_label
from llf_widgets.monitor import formatting
from llf_widgets.monitor.chart_data import NOTHING
from llf_widgets.plotting.colors import (
    BAD,
    DASHED,
    DOTTED,
    EVALUATION,
    MUTED,
    TRAINING,
    evaluation_color,
    faded,
    line_color,
)
from llf_widgets.plotting.line_labels import last_point
from llf_widgets.plotting.plotly_layout import HOVER, escape

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from llf_core.runs.charts import Place
    from llf_widgets.monitor.chart_data import ChartData, Line
    from llf_widgets.monitor.chart_grid import ChartGrid, PlacedChart
    from llf_widgets.plotting.plotly_layout import Axes

    Trace = dict[str, Any]

LOW, HIGH = 0.03, 0.97  # heights of marks, as shares of the chart's
HEIGHTS = (0.9, 0.8, 0.7)
"""Heights of neighboring changes, so that their labels do not overlap."""
CLOSE = 0.12  # of the range of the values, between two labels of the large chart


@dataclass(frozen=True)
class LineStyle:
    """How the lines of a chart are drawn.

    Attributes:
        opacity: of the logged values, beside the smoothed ones.
        dot: size of the points of an evaluation, in pixels.
        evaluation: label of an evaluation line, beside a single line.
        number: hover format of plain numbers.
    """

    opacity: float
    dot: float
    evaluation: str
    number: str


STYLES: Mapping[Place, LineStyle] = {
    "top": LineStyle(0.5, 5.5, "evaluation", ".4f"),
    "middle": LineStyle(0.4, 5, "held out", HOVER["number"]),
}


def chart_traces(placed: PlacedChart, grid: ChartGrid, data: ChartData) -> list[Trace]:
    """The traces of a chart, with their data; `grid` has the axes of markers."""
    if placed.place == "bottom":
        return [trace for name in placed.shown.lines for trace in _small_traces(name, placed, data)]
    traces = [
        trace
        for number, (name, label) in enumerate(placed.shown.lines.items())
        for trace in _line_traces(number, name, label, placed, data)
    ]
    return traces if placed.place == "middle" else [*traces, *_end_labels(placed, data), *_marks(grid.marks, data)]


def _base(axes: Axes) -> Trace:
    return {"type": "scatter", "mode": "lines", "showlegend": False, **axes.trace}


def _line_traces(number: int, name: str, label: str, placed: PlacedChart, data: ChartData) -> Iterator[Trace]:
    """Logged values, smoothed values, and evaluations: always in the large chart, else if there are any."""
    style, several = STYLES[placed.place], len(placed.shown.lines) > 1
    form = style.number if placed.chart.form == "number" else HOVER[placed.chart.form]
    base, (color, dash) = _base(placed.axes), line_color(number)
    tip = "step %{{x}}: {} %{{y:{}}}<extra></extra>".format
    yield base | {
        "name": escape(name), "line": {"color": color, "width": 1}, "marker": {"color": color, "size": 5},
        "opacity": style.opacity, "hovertemplate": tip(escape(label), form), **_line_or_dot(data.line(name)),
    }  # fmt: skip
    yield base | {
        "name": f"{escape(name)}, smoothed", "line": {"color": color, "width": 1.75, "dash": dash},
        "hoverinfo": "skip", **_points(data.smooth.get(name, NOTHING)),
    }  # fmt: skip
    if placed.place == "top" or data.held_out(name):
        color = evaluation_color(color, len(placed.shown.lines))
        yield from _band(base, name, color, form, data)
        label = f"{escape(label)}, {style.evaluation}" if several else style.evaluation
        yield base | {
            "name": EVAL_PREFIX + escape(name), "mode": "lines+markers", "cliponaxis": False,
            "line": {"color": color, "width": 1.75, "dash": DASHED}, "marker": {"color": color, "size": style.dot},
            "hovertemplate": tip(label, form), **_points(data.line(EVAL_PREFIX + name)),
        }  # fmt: skip


def _band(base: Trace, name: str, color: str, form: str, data: ChartData) -> Iterator[Trace]:
    if not data.has_interval(name):
        return
    for bound, fill in ((charts.LOW, None), (charts.HIGH, "tonexty")):
        yield base | {
            "name": EVAL_PREFIX + escape(name + bound), "line": {"color": color, "width": 0}, "opacity": 1,
            "hovertemplate": f"step %{{x}}: {charts.BOUND_LABELS[bound]} %{{y:{form}}}<extra></extra>",
            **({} if fill is None else {"fill": fill, "fillcolor": faded(color)}),
            **_points(data.line(EVAL_PREFIX + name + bound)),
        }  # fmt: skip


def _small_traces(name: str, placed: PlacedChart, data: ChartData) -> Iterator[Trace]:
    base, title = _base(placed.axes), placed.chart.title
    tip = f"step %{{x}}: %{{y:{HOVER[placed.chart.form]}}}"
    yield base | {
        "name": escape(title), "line": {"color": MUTED, "width": 1.25}, "marker": {"color": MUTED, "size": 4},
        "hovertemplate": f"{tip}<extra></extra>", **_line_or_dot(data.line(name)),
    }  # fmt: skip
    if name in data.planned:
        yield base | {
            "name": f"planned {lowercase_label(escape(title))}",
            "line": {"color": MUTED, "width": 1.25, "dash": DOTTED},
            "hovertemplate": f"{tip} planned<extra></extra>", **_points(data.planned[name]),
        }  # fmt: skip


def _marks(axes: Axes, data: ChartData) -> list[Trace]:
    """Marks in the large chart: checkpoints, the best one, resumes and live changes, values not finite.

    Texts have traces of their own, since plotly.js loses texts beside empty ones when it draws again.
    """
    base = _base(axes) | {"mode": "markers", "hoverinfo": "x", "cliponaxis": False}
    text = _base(axes) | {"mode": "text", "hoverinfo": "skip", "cliponaxis": False}
    steps = np.array([step for step, _ in data.marks], dtype=np.int64)
    heights = np.array([HEIGHTS[number % len(HEIGHTS)] for number in range(steps.size)])
    return [
        base | {
            "name": "checkpoints", "marker": {"symbol": "triangle-up", "size": 7, "color": MUTED},
            "x": data.kept, "y": np.full(data.kept.size, LOW),
        },
        base | {
            "name": "best", "marker": {"symbol": "star", "size": 8, "color": EVALUATION},
            "x": data.best, "y": np.full(data.best.size, LOW),
        },
        base | {
            "name": "changes", "mode": "lines", "hoverinfo": "skip",
            "line": {"color": MUTED, "width": 1, "dash": "3px,3px"}, **_vertical_lines(steps, heights),
        },
        text | {
            "name": "change labels", "textposition": "middle right", "textfont": {"size": 11, "color": MUTED},
            "x": steps, "y": heights, "text": [f" {label}" for _, label in data.marks],
        },
        base | {
            "name": "not finite", "marker": {"symbol": "x", "size": 7, "color": BAD},
            "x": data.broken, "y": np.full(data.broken.size, HIGH),
        },
        text | {
            "name": "not finite label", "textposition": _roomier_side(data), "textfont": {"size": 11, "color": BAD},
            "x": data.broken[-1:], "y": np.full(data.broken[-1:].size, HIGH), "text": _broken_text(data),
        },
    ]  # fmt: skip


def _end_labels(placed: PlacedChart, data: ChartData) -> list[Trace]:
    """Name and last value at the end of each line of the large chart; of two close labels the higher moves up.

    They are traces, since annotations do not follow an axis that becomes logarithmic.
    """
    name = data.primary
    lines = ((name, placed.shown.lines[name], TRAINING), (EVAL_PREFIX + name, STYLES["top"].evaluation, EVALUATION))
    ends = [last_point(*data.line(logged)) for logged, _, _ in lines]
    positions = ["middle right", "middle right"]
    if all(end is not None for end in ends):
        every = np.concatenate([data.line(logged)[1] for logged, _, _ in lines])
        span = float(np.ptp(every[np.isfinite(every)]))
        (_, first), (_, second) = (end or (0, 0) for end in ends)
        if abs(first - second) < CLOSE * max(span, 1e-12):
            positions = ["top right", "bottom right"] if first >= second else ["bottom right", "top right"]
    return [
        _base(placed.axes)
        | {
            "name": f"{logged} label", "mode": "text", "cliponaxis": False, "hoverinfo": "skip",
            "textfont": {"size": 12, "color": color}, "textposition": position,
            "x": np.array([end[0]] if end else [], dtype=np.int64), "y": np.array([end[1]] if end else []),
            "text": [f" {label} {formatting.value(data.last[logged], placed.chart.form)}"] if end else [],
        }
        for (logged, label, color), end, position in zip(lines, ends, positions, strict=True)
    ]  # fmt: skip


def _line_or_dot(line: Line) -> dict[str, object]:
    return _points(line) | {"mode": "markers" if line[0].size == 1 else "lines"}


def _points(line: Line) -> dict[str, object]:
    x, y = line
    return {"x": x, "y": y}


def _broken_text(data: ChartData) -> list[str]:
    what = "losses" if data.primary == "loss" else "values"
    return [f"not a finite number: {data.broken_count:,} of the logged {what}"] if data.broken.size else []


def _roomier_side(data: ChartData) -> str:
    """The side with more room for a label at the last value that is not finite, among the steps so far."""
    steps, _ = data.line(data.primary)
    return "middle right" if data.broken.size and 2 * data.broken[-1] < steps[-1] else "middle left"


def _vertical_lines(steps: np.ndarray, heights: np.ndarray) -> dict[str, object]:
    x = [point for step in steps.tolist() for point in (step, step, None)]
    return {"x": x, "y": [point for height in heights.tolist() for point in (0, height, None)]}
