"""The charts of a run as a PNG for saved notebooks: the large chart, and the first of those below it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.runs.metric_catalog import EVAL_PREFIX
from llf_widgets.monitor.chart_data import NOTHING
from llf_widgets.monitor.plotly_texts import line_ends
from llf_widgets.plotting.colors import BAD, EVALUATION, TRAINING, evaluation_color, line_color, to_hex
from llf_widgets.plotting.image import GRAY, draw_end_labels, format_percent, new_figure, plain_axes, to_png
from llf_widgets.plotting.plotly_layout import maximum_range

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from llf_core.runs.metric_catalog import LoggedChart
    from llf_widgets.monitor.chart_data import ChartData

WIDTH, LARGE, ROW, DPI = 7.4, 3.1, 1.75, 140  # inches
BELOW = 4  # charts below the large one: an image is looked at as a whole
DASHED = (0, (5, 2))


def saved_image(data: ChartData, total: int, title: str = "", line: str = "") -> bytes:
    """Draw the primary metric over the (planned) steps, and the first other charts below, as a PNG with a title."""
    shown = data.middle[:BELOW]
    below = ROW * -(-len(shown) // 2)
    height = LARGE + below
    figure = new_figure(WIDTH, height, DPI)
    for text, down, size, weight in ((title, 0.015, 10, "bold"), (line, 0.085, 8.5, "normal")):
        place = 1 - down * LARGE / height
        figure.text(0.01, place, text, color=GRAY, fontsize=size, fontweight=weight, va="top", parse_math=False)
    box = (0.06, (below + 0.11 * LARGE) / height, 0.76, 0.67 * LARGE / height)
    _draw_large(figure.add_axes(box), data, total)
    for number, one in enumerate(shown):
        row, column = divmod(number, 2)
        bottom = below - ROW * (row + 1) + 0.32
        box = (0.075 + 0.5 * column, bottom / height, 0.3, (ROW - 0.8) / height)
        _draw_chart(figure.add_axes(box), one, data, total)
    return to_png(figure)


def _draw_large(axes: Axes, data: ChartData, total: int) -> None:
    name = data.primary
    _draw_line(axes, name, data, (to_hex(TRAINING), to_hex(EVALUATION)), (0.8, 0.5, 1.6, 3), clip_on=False)
    draw_end_labels(axes, line_ends(data.top, data, "evaluation"), 9)
    for number, (step, label) in enumerate(data.marks):
        axes.axvline(step, color=GRAY, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.annotate(
            f" {label}", (step, 1 - 0.1 * (number % 3)), xycoords=("data", "axes fraction"), color=GRAY, fontsize=8,
            va="top",
        )  # fmt: skip
    if data.broken_count:
        height = np.full(data.broken.size, 0.97)
        transform = axes.get_xaxis_transform()
        axes.plot(data.broken, height, "x", color=to_hex(BAD), markersize=5, transform=transform)
    plain_axes(axes, data.top.chart.title, x=-0.05, outward=4)
    _limit_steps(axes, total)


def _draw_chart(axes: Axes, shown: LoggedChart, data: ChartData, total: int) -> None:
    for number, name in enumerate(shown.lines):
        color, _ = line_color(number)
        held_out = evaluation_color(color, len(shown.lines))
        _draw_line(axes, name, data, (to_hex(color), to_hex(held_out)), (0.6, 0.35, 1.3, 2))
    chart = shown.chart
    if chart.level is not None:
        axes.axhline(chart.level, color=GRAY, linewidth=0.7, linestyle=(0, (2, 3)), zorder=0)
    if chart.maximum is not None:
        axes.set_ylim(*maximum_range(chart)["range"])
    if chart.form == "share":
        format_percent(axes)
    draw_end_labels(axes, line_ends(shown, data), 8)
    plain_axes(axes, chart.title, size=8.5, x=-0.12, outward=4)
    _limit_steps(axes, total)
    axes.locator_params(axis="y", nbins=4)


def _draw_line(
    axes: Axes,
    name: str,
    data: ChartData,
    colors: tuple[str, str],
    style: tuple[float, float, float, float],
    **evaluation: Any,
) -> None:
    """A metric as logged, smoothed and of evaluations.

    Args:
        style: width and opacity of the logged line, width of the others, size of an evaluation's points.
    """
    thin, opacity, thick, dot = style
    axes.plot(*data.line(name), color=colors[0], linewidth=thin, alpha=opacity)
    axes.plot(*data.smooth.get(name, NOTHING), color=colors[0], linewidth=thick)
    axes.plot(
        *data.line(EVAL_PREFIX + name), color=colors[1], linewidth=thick, linestyle=DASHED, marker="o", markersize=dot,
        **evaluation,
    )  # fmt: skip


def _limit_steps(axes: Axes, total: int) -> None:
    axes.set_xlim(0, total if total > 0 else None)
    axes.locator_params(axis="x", integer=True)
