"""The texts of a run's charts as Plotly annotations: titles, descriptions, last values, labels of lines."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.runs.curves import label as smoothing_label
from llf_core.runs.metric_catalog import EVAL_PREFIX
from llf_widgets.monitor import formatting
from llf_widgets.monitor.chart_data import NOTHING
from llf_widgets.plotting.colors import MUTED, evaluation_color, line_color
from llf_widgets.plotting.line_labels import LineEnd, end_labels, last_point, value_range
from llf_widgets.plotting.plotly_layout import LEFT, MARGIN, escape, heading, note

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llf_core.runs.metric_catalog import LoggedChart
    from llf_widgets.monitor.chart_data import ChartData
    from llf_widgets.monitor.chart_grid import PlacedChart

    Text = dict[str, Any]

HELP_WIDTH = 56  # letters of 11 pixels that fit above a chart in the narrowest figure
LINE, HELP_LINE, LETTER = 13, 14, 8  # pixels: between two labels, of a line of help, of a letter of a title


def chart_texts(placed: PlacedChart, data: ChartData, *, narrow: bool = False) -> list[Text]:
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
