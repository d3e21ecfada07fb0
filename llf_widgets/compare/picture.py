"""The curves of several runs as an image, for saved notebooks and pages."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_widgets.compare.figure import OVER, figure_json
from llf_widgets.monitor.picture import hex_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_widgets.monitor.run_tracker import RunTracker

SIZE, DPI = (7.4, 5.4), 120
QUIET = "#7a7a7a"
DASHES = {"solid": "-", "6px,3px": (0, (6, 3)), "2px,2px": (0, (2, 2)), "8px,3px,2px,3px": (0, (8, 3, 2, 3))}
POINTS = 0.75  # of a pixel


def picture(watches: Sequence[RunTracker], options: dict[str, Any]) -> str:
    """Draw the figure of `figure_json` as a PNG data URL.

    Args:
        watches: the runs, already read.
        options: arguments of `figure_json`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = figure_json(watches, **options)
    figure = Figure(figsize=SIZE, dpi=DPI)
    FigureCanvasAgg(figure)
    shape = drawn["layout"]
    titles = [one for one in shape["annotations"] if one["xref"] == "paper"]
    panels = figure.subplots(len(titles), 1, squeeze=False)[:, 0]
    upper, lower = panels[0], panels[-1]
    for trace in drawn["data"]:
        axes = lower if trace["xaxis"] == "x2" else upper
        style = {"linestyle": DASHES[trace["line"].get("dash", "solid")], "markersize": 3}
        style |= {"marker": "o" if "markers" in trace["mode"] else None, "linewidth": trace["line"]["width"]}
        axes.plot(
            trace["x"], trace["y"], color=hex_of(trace["line"]["color"]), alpha=trace.get("opacity", 1.0), **style
        )
    for axes, title in zip(panels, titles, strict=True):
        scale = shape["yaxis2" if axes is lower else "yaxis"]
        axes.set_title(_text(title["text"]), loc="left", fontsize=9, fontweight="bold", color=QUIET, parse_math=False)
        _scale(axes, scale)
        axes.patch.set_alpha(0)
        axes.tick_params(colors=QUIET, labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(QUIET)
    for note in shape["annotations"]:
        if note["xref"] != "paper":
            axes = lower if note["xref"] == "x2" else upper
            scale = shape["yaxis2" if axes is lower else "yaxis"]
            height = 10 ** note["y"] if scale["type"] == "log" else note["y"]
            axes.annotate(
                _text(note["text"]), (note["x"], height), xytext=(4, POINTS * note["yshift"]),
                textcoords="offset points", color=hex_of(note["font"]["color"]), fontsize=8, va="center",
                annotation_clip=False, parse_math=False,
            )  # fmt: skip
    lower.set_xlabel(OVER[options["over"]], fontsize=8, color=QUIET)
    figure.subplots_adjust(left=0.08, right=0.76, top=0.94, bottom=0.09, hspace=0.35)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", transparent=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _scale(axes: Any, scale: dict[str, Any]) -> None:
    """Apply the live chart's axis ticks."""
    axes.set_yscale(scale["type"])
    if "tickvals" in scale:
        from matplotlib.ticker import NullLocator

        axes.set_yticks(np.asarray(scale["tickvals"]), scale["ticktext"])
        axes.yaxis.set_minor_locator(NullLocator())
    elif scale["tickformat"].endswith("%"):
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    if "range" in scale:
        axes.set_ylim(*scale["range"])


def _text(markup: str) -> str:
    """Plotly markup as plain text."""
    plain = markup.replace("<b>", "").replace("</b>", "")
    return plain.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
