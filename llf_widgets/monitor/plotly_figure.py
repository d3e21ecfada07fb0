"""The charts of a run as one Plotly figure. To add a chart, add a row to `llf_core.runs.charts.CHARTS`.

The large chart is at the top, the small ones that every run has at the bottom, those of other metrics between them.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.runs import charts
from llf_core.runs.charts import EVAL_PREFIX, lowercase_label
from llf_core.runs.curves import label as smoothing_label
from llf_widgets.monitor import formatting
from llf_widgets.monitor.chart_data import NOTHING
from llf_widgets.plotting.plotly_layout import (
    AXIS,
    BAD,
    DASHED,
    DOTTED,
    EVALUATION,
    HOVER,
    LEFT,
    MARGIN,
    MUTED,
    TICKS,
    TRAINING,
    Axes,
    LineEnd,
    base_layout,
    end_labels,
    escape,
    evaluation_color,
    faded,
    heading,
    last_point,
    line_color,
    maximum_range,
    note,
    plain_axis,
    value_range,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from llf_core.runs.charts import Chart, Form, LoggedChart, Place
    from llf_widgets.monitor.chart_data import ChartData, Line

    Trace = dict[str, Any]
    Text = dict[str, Any]

TOP, BOTTOM, RIGHT = 30, 28, 12  # pixels around the charts
STEP_TICKS: Mapping[Place, int] = {"top": 8, "middle": 6, "bottom": 4}
VALUE_TICKS: Mapping[Place, int] = {"top": 5, "middle": 4, "bottom": 3}
ZERO = {"0e+0": "0"}

SMALL_TICKS: Mapping[Form, dict[str, object]] = {
    # `-0.00005` and `0.0005` are wider than the room left of the axis
    "number": {"tickformatstops": [{"dtickrange": [None, 9e-5], "value": "~e"}], "labelalias": ZERO},
    "rate": {"labelalias": ZERO},
}
"""Settings of the ticks of a form in small charts, beside their format."""


def figure_json(data: ChartData, total: int, *, narrow: bool = False) -> dict[str, Any]:
    """Build the complete figure with numpy arrays, which `encode_arrays` turns into JSON.

    Args:
        total: planned steps, the right end of every step axis; 0 if unknown.
        narrow: fewer charts in a row, for a view of less than 700 pixels.
    """
    grid = chart_grid(data, narrow=narrow)
    return {
        "data": [trace for placed in grid.charts for trace in _chart_traces(placed, grid, data)],
        "layout": {
            **base_layout(
                TOP + grid.height + BOTTOM,
                [placed.axes.described(placed.chart.title) for placed in grid.charts],
                {"r": RIGHT, "t": TOP, "b": BOTTOM},
                uirevision="llf",
            ),
            **_axes(data, total, grid),
            "annotations": [text for placed in grid.charts for text in _chart_texts(placed, data, narrow=narrow)],
            "shapes": [level for placed in grid.charts for level in _levels(placed)],
        },
    }


def _axes(data: ChartData, total: int, grid: ChartGrid) -> dict[str, dict[str, object]]:
    """The axes of all charts; blank until there is data."""
    found: dict[str, dict[str, object]] = {}
    axis = plain_axis(showticklabels=data.points > 0)
    steps = axis | _step_range(total) | {"rangemode": "tozero"}
    for placed in grid.charts:
        x, y = placed.axes.layout
        found[x] = steps | {
            "domain": placed.across, "anchor": placed.axes.trace["yaxis"], "nticks": STEP_TICKS[placed.place],
        }  # fmt: skip
        found[y] = axis | {
            "domain": placed.up, "anchor": placed.axes.trace["xaxis"], "nticks": VALUE_TICKS[placed.place],
            **_scale(placed),
        }  # fmt: skip
    x, y = grid.marks.layout
    found[x] |= {"labelalias": {"0": "step 0"}}
    found[y] = {
        "overlaying": grid.top.axes.trace["yaxis"], "anchor": grid.marks.trace["xaxis"],
        "range": [0, 1], "fixedrange": True, "visible": False,
    }  # fmt: skip
    return found


def _step_range(total: int) -> dict[str, object]:
    return {"range": [0, total], "autorange": False} if total > 0 else {"autorange": True}


def _scale(placed: PlacedChart) -> dict[str, object]:
    chart = placed.chart
    # The large chart's axis may become logarithmic, where Plotly applies every format by step size
    particular = {} if placed.place == "top" else SMALL_TICKS.get(chart.form, {})
    form = {"tickformat": TICKS[chart.form], **particular}
    if chart.maximum is not None:
        return form | maximum_range(chart) | {"autorange": False}
    return form | ({"rangemode": "tozero"} if placed.place == "bottom" or chart.form != "number" else {})


def _levels(placed: PlacedChart) -> list[dict[str, object]]:
    level, reference = placed.chart.level, placed.axes.reference
    if level is None:
        return []
    return [
        {
            "type": "line", "layer": "below", "xref": f"{reference['xref']} domain", "x0": 0, "x1": 1,
            "yref": reference["yref"], "y0": level, "y1": level,
            "line": {"color": AXIS, "width": 1, "dash": "2px,3px"},
        }
    ]  # fmt: skip


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


def _chart_traces(placed: PlacedChart, grid: ChartGrid, data: ChartData) -> list[Trace]:
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


HELP_WIDTH = 56  # letters of 11 pixels that fit above a chart in the narrowest figure
LINE, HELP_LINE, LETTER = 13, 14, 8  # pixels: between two labels, of a line of help, of a letter of a title


def _chart_texts(placed: PlacedChart, data: ChartData, *, narrow: bool = False) -> list[Text]:
    """The annotations of a chart: title, description, last values and labels."""
    make = {"top": _large_texts, "middle": _middle_texts, "bottom": _small_texts}[placed.place]
    return [*make(placed, data, narrow=narrow), *_level_label(placed)]


def _large_texts(placed: PlacedChart, data: ChartData, *, narrow: bool) -> Iterator[Text]:
    title = placed.chart.title
    smooth = (
        f"thick: {smoothing_label(data.window)}, thin: every logged step" if data.window else "solid: every logged step"
    )
    interval = " with its 95 % interval" if any(data.has_interval(name) for name in placed.shown.lines) else ""
    drawn = [
        (f"dashed: evaluation{interval}", any(data.held_out(name) for name in placed.shown.lines)),
        ("▲ checkpoint", data.kept.size > 0),
        ("★ best", data.best.size > 0),
    ]
    legend = ", ".join([smooth, *(text for text, there in drawn if there and not narrow)])
    yield heading(f"<b>{escape(title)}</b>", placed.across[0], placed.up[1], 6)
    yield note(legend, placed.across[0], placed.up[1], 6) | {"xshift": max(0, LETTER * len(title) - 42)}


def _small_texts(placed: PlacedChart, data: ChartData, *, narrow: bool) -> Iterator[Text]:  # noqa: ARG001
    (left, right), (_, top) = placed.across, placed.up
    name = next(iter(placed.shown.lines))
    value = formatting.value(data.last[name], placed.chart.form) if name in data.last else ""
    yield heading(f"<b>{escape(placed.chart.title)}</b>", left, top, 8)
    yield heading(value, right, top, 8) | {"xanchor": "right", "xshift": 0}


def _middle_texts(placed: PlacedChart, data: ChartData, *, narrow: bool) -> Iterator[Text]:  # noqa: ARG001
    chart, lines = placed.chart, placed.shown.lines
    (left, _), (_, top) = placed.across, placed.up
    held_out = any(data.held_out(name) for name in lines)
    help_text = f"{chart.help} Dashed: evaluation set." if held_out and len(lines) > 1 else chart.help
    if any(data.has_interval(name) for name in lines):
        help_text += " Band: 95 % interval."
    help_lines = textwrap.wrap(help_text, HELP_WIDTH)
    yield heading(f"<b>{escape(chart.title)}</b>", left, top, 10 + HELP_LINE * len(help_lines))
    yield note("<br>".join(escape(line) for line in help_lines), left, top, 8) | {
        "xshift": -LEFT,
        "align": "left",
    }
    ends, reach = line_ends(placed.shown, data), _reach(placed.shown, data)
    yield from end_labels(ends, placed.axes, placed.pixels, reach, apart=LINE, size=11)


def line_ends(shown: LoggedChart, data: ChartData, held_out: str = "held out") -> list[LineEnd]:
    """Name and last value of each line; of evaluations only beside a single line, where there is room."""
    found = []
    for number, (name, label) in enumerate(shown.lines.items()):
        color, _ = line_color(number)
        labels = [(name, label, color)]
        if len(shown.lines) == 1:
            labels.append((EVAL_PREFIX + name, held_out, evaluation_color(color, 1)))
        for logged, text, tone in labels:
            end = last_point(*data.line(logged))
            if end is not None:
                found.append(LineEnd(*end, f"{text} {formatting.value(data.last[logged], shown.chart.form)}", tone))
    return found


def _reach(shown: LoggedChart, data: ChartData) -> tuple[float, float]:
    if shown.chart.maximum is not None:
        return 0.0, MARGIN * shown.chart.maximum
    return value_range([*_values(shown, data), *([] if shown.chart.level is None else [np.array([shown.chart.level])])])


def _values(shown: LoggedChart, data: ChartData) -> Iterator[np.ndarray]:
    for name in shown.lines:
        for _, values in (data.line(name), data.smooth.get(name, NOTHING), data.line(EVAL_PREFIX + name)):
            yield values


def _level_label(placed: PlacedChart) -> list[Text]:
    chart, reference = placed.chart, placed.axes.reference
    if not chart.level_label:
        return []
    return [
        note(chart.level_label, 0, chart.level or 0.0, 0)
        | {
            "xref": f"{reference['xref']} domain", "yref": reference["yref"], "xshift": 3, "yanchor": "top",
            "font": {"color": MUTED, "size": 10},
        }
    ]  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """Rows of equal charts. Pairs are for a wide and for a narrow figure.

    Attributes:
        above: pixels between a chart and the row above it, for axis labels and headings.
        columns: charts in a row.
        gaps: share of the figure's width between two charts of a row.
        labels: share of a chart's width for the labels at the ends of its lines.
    """

    height: int
    above: int
    columns: tuple[int, int]
    gaps: tuple[float, float]
    labels: tuple[float, float]


ROWS: Mapping[Place, Rows] = {
    "top": Rows(216, 0, columns=(1, 1), gaps=(0, 0), labels=(0.12, 0.24)),
    "middle": Rows(120, 94, columns=(2, 1), gaps=(0.075, 0.075), labels=(0.26, 0.26)),
    "bottom": Rows(87, 69, columns=(4, 2), gaps=(0.075, 0.15), labels=(0, 0)),
}
"""The rows of each place, from top to bottom."""


@dataclass(frozen=True)
class PlacedChart:
    """A chart at its position in the figure.

    Attributes:
        place: place where it is drawn: a chart of the table's top is in the middle beside another primary metric.
        across: left and right end, as shares of the figure's width.
        up: bottom and top, as shares of the height of all charts.
    """

    place: Place
    shown: LoggedChart
    axes: Axes
    across: tuple[float, float]
    up: tuple[float, float]

    @property
    def chart(self) -> Chart:
        """Title, help and number format."""
        return self.shown.chart

    @property
    def pixels(self) -> int:
        """Its height in pixels."""
        return ROWS[self.place].height


@dataclass(frozen=True)
class ChartGrid:
    """All charts of a figure.

    Attributes:
        charts: the large chart first, then the small ones, then those between.
        marks: axes of the marks in the large chart: its x axis, and a y axis from 0 to 1 of its own.
    """

    charts: tuple[PlacedChart, ...]
    marks: Axes
    height: int

    @property
    def top(self) -> PlacedChart:
        """The large chart."""
        return self.charts[0]


def chart_grid(data: ChartData, *, narrow: bool = False) -> ChartGrid:
    """Place the charts of a run. Those that every run has get the first axes, so that zooms stay as others appear."""
    by_place: dict[Place, Sequence[LoggedChart]] = {"top": (data.top,), "middle": data.middle, "bottom": data.bottom}
    boxes = {place: list(_row_boxes(place, len(charts), narrow=narrow)) for place, charts in by_place.items()}
    height, starts = 0, {}
    for place, found in boxes.items():
        starts[place] = height
        height += max((bottom for _, (_, bottom) in found), default=0)
    numbers = count(1)
    charts = tuple(
        PlacedChart(
            place, shown, Axes.numbered(next(numbers)), across,
            (1 - (starts[place] + bottom) / height, 1 - (starts[place] + top) / height),
        )
        for place in ("top", "bottom", "middle")
        for shown, (across, (top, bottom)) in zip(by_place[place], boxes[place], strict=True)
    )  # fmt: skip
    return ChartGrid(charts, Axes(charts[0].axes.x, next(numbers)), height)


def _row_boxes(place: Place, number: int, *, narrow: bool) -> Iterator[tuple[tuple[float, float], tuple[int, int]]]:
    """Left and right end (shares), and top and bottom (pixels below the rows before) of each chart of a place."""
    rows = ROWS[place]
    columns, gap, labels = rows.columns[narrow], rows.gaps[narrow], rows.labels[narrow]
    width = (1 - gap * (columns - 1)) / columns
    for chart in range(number):
        row, column = divmod(chart, columns)
        left, top = column * (width + gap), rows.above + row * (rows.height + rows.above)
        yield (left, left + width * (1 - labels)), (top, top + rows.height)
