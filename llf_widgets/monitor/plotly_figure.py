"""The charts of a run as one Plotly figure. To add a chart, add a row to `llf_core.runs.charts.CHARTS`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_widgets.monitor.chart_grid import chart_grid
from llf_widgets.monitor.plotly_texts import chart_texts
from llf_widgets.monitor.plotly_traces import chart_traces
from llf_widgets.plotting.colors import AXIS
from llf_widgets.plotting.plotly_layout import TICKS, base_layout, maximum_range, plain_axis

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.runs.charts import Form, Place
    from llf_widgets.monitor.chart_data import ChartData
    from llf_widgets.monitor.chart_grid import ChartGrid, PlacedChart

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
    """Build the complete figure with numpy arrays, which `array_encoding.encode_arrays` turns into JSON.

    Args:
        total: planned steps, the right end of every step axis; 0 if unknown.
        narrow: fewer charts in a row, for a view of less than 700 pixels.
    """
    grid = chart_grid(data, narrow=narrow)
    return {
        "data": [trace for placed in grid.charts for trace in chart_traces(placed, grid, data)],
        "layout": {
            **base_layout(
                TOP + grid.height + BOTTOM,
                [placed.axes.described(placed.chart.title) for placed in grid.charts],
                {"r": RIGHT, "t": TOP, "b": BOTTOM},
                uirevision="llf",
            ),
            **_axes(data, total, grid),
            "annotations": [text for placed in grid.charts for text in chart_texts(placed, data, narrow=narrow)],
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
