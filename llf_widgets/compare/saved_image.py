from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_widgets.compare.plotly_figure import BAND_OPACITY, X_AXES, figure_json
from llf_widgets.plotting.colors import to_hex
from llf_widgets.plotting.image import GRAY, draw_label, format_percent, new_figure, plain_axes, to_png
from llf_widgets.plotting.line_labels import LineEnd

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from llf_widgets.compare.run_group import RunGroup

SIZE, DPI = (7.4, 5.4), 120
POINTS = 0.75  # of a pixel


def saved_image(groups: Sequence[RunGroup], options: dict[str, Any]) -> str:
    """Draw the figure of `figure_json(groups, **options)` as a PNG data URL."""
    drawn = figure_json(groups, **options)
    shape = drawn["layout"]
    charts = shape["meta"]["charts"]
    figure = new_figure(*SIZE, DPI)
    panels = figure.subplots(len(charts), 1, squeeze=False)[:, 0]
    panel_of = {chart["x"]: panel for chart, panel in zip(charts, panels, strict=True)}
    scale_of = {chart["x"]: shape[chart["yaxis"]] for chart in charts}
    for trace in drawn["data"]:
        line = trace["line"]
        if "fill" in trace:
            _fill(panel_of[trace["xaxis"]], trace)
            continue
        panel_of[trace["xaxis"]].plot(
            trace["x"], trace["y"], color=to_hex(line["color"]), alpha=trace.get("opacity", 1.0), markersize=3,
            linestyle=_dash(line.get("dash", "solid")), linewidth=line["width"],
            marker="o" if "markers" in trace["mode"] else None,
        )  # fmt: skip
    titles = [text["text"] for text in shape["annotations"] if text["xref"] == "paper"]
    for chart, panel, title in zip(charts, panels, titles, strict=True):
        plain_axes(panel, _text(title))
        _scale(panel, scale_of[chart["x"]])
    for text in shape["annotations"]:
        if text["xref"] != "paper":
            height = 10 ** text["y"] if scale_of[text["xref"]]["type"] == "log" else text["y"]
            end = LineEnd(text["x"], height, _text(text["text"]), text["font"]["color"])
            draw_label(panel_of[text["xref"]], end, (4, POINTS * text["yshift"]), 8)
    panels[-1].set_xlabel(X_AXES[options["x_axis"]], fontsize=8, color=GRAY)
    figure.subplots_adjust(left=0.08, right=0.76, top=0.94, bottom=0.09, hspace=0.35)
    return f"data:image/png;base64,{base64.b64encode(to_png(figure)).decode('ascii')}"


def _fill(panel: Axes, trace: dict[str, Any]) -> None:
    for piece in np.split(np.arange(len(trace["x"])), np.flatnonzero(np.isnan(trace["x"]))):
        points = piece[np.isfinite(trace["x"][piece])]
        if points.size:
            color = to_hex(trace["line"]["color"])
            panel.fill(trace["x"][points], trace["y"][points], color=color, alpha=BAND_OPACITY, linewidth=0)


def _dash(dash: str) -> str | tuple[int, tuple[int, ...]]:
    """Plotly's dash, such as `6px,3px`, as matplotlib's."""
    return dash if dash == "solid" else (0, tuple(int(part.removesuffix("px")) for part in dash.split(",")))


def _scale(axes: Axes, scale: dict[str, Any]) -> None:
    axes.set_yscale(scale["type"])
    if "tickvals" in scale:
        from matplotlib.ticker import NullLocator

        axes.set_yticks(np.asarray(scale["tickvals"]), scale["ticktext"])
        axes.yaxis.set_minor_locator(NullLocator())
    elif scale["tickformat"].endswith("%"):
        format_percent(axes)
    if "range" in scale:
        axes.set_ylim(*scale["range"])


def _text(markup: str) -> str:
    plain = markup.replace("<b>", "").replace("</b>", "")
    return plain.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
