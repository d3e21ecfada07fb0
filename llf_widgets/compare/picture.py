"""The curves of several runs as a picture, for saved notebooks and pages."""

from __future__ import annotations

import base64
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_widgets.compare.figure import OVER, figure_json
from llf_widgets.monitor.picture import hex_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_widgets.monitor.watch import Watch

SIZE, DPI = (7.4, 5.4), 120
QUIET = "#7a7a7a"
DASHES = {"solid": "-", "6px,3px": (0, (6, 3)), "2px,2px": (0, (2, 2)), "8px,3px,2px,3px": (0, (8, 3, 2, 3))}


def picture(watches: Sequence[Watch], options: dict[str, Any]) -> str:
    """A PNG as a data URL, of what `figure_json` draws with the same options."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = figure_json(watches, **options)
    figure = Figure(figsize=SIZE, dpi=DPI)
    FigureCanvasAgg(figure)
    shape = drawn["layout"]
    titles = [one["text"].split("</b>")[0].removeprefix("<b>") for one in shape["annotations"]]
    panels = figure.subplots(len(titles), 1, squeeze=False)[:, 0]
    upper, lower = panels[0], panels[-1]
    for trace in drawn["data"]:
        axes = lower if trace["xaxis"] == "x2" else upper
        x, y = np.asarray(trace["x"], dtype=float), np.asarray(trace["y"], dtype=float)
        if trace["mode"] == "text":
            for place, text in enumerate(trace["text"]):
                axes.annotate(_text(text), (x[place], y[place]), color=hex_of(trace["textfont"]["color"]), fontsize=8,
                              annotation_clip=False, va="center", parse_math=False)  # fmt: skip
            continue
        color, marker = trace["line"]["color"], "o" if "markers" in trace["mode"] else None
        style = {"linestyle": DASHES[trace["line"].get("dash", "solid")], "marker": marker, "markersize": 3}
        style |= {"linewidth": trace["line"]["width"], "alpha": trace.get("opacity", 1.0)}
        axes.plot(x, y, color=hex_of(color), **style)
    scale = shape["yaxis2"]
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(_text(title), loc="left", fontsize=9, fontweight="bold", color=QUIET, parse_math=False)
        axes.set_yscale(scale["type"])
        if scale["tickformat"].endswith("%"):
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
        if "range" in scale:
            axes.set_ylim(*scale["range"])
        axes.patch.set_alpha(0)
        axes.tick_params(colors=QUIET, labelsize=8)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            axes.spines[side].set_color(QUIET)
    lower.set_xlabel(OVER[options["over"]], fontsize=8, color=QUIET)
    figure.subplots_adjust(left=0.07, right=0.8, top=0.94, bottom=0.09, hspace=0.35)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", transparent=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def _text(markup: str) -> str:
    """Plotly's markup as plain text."""
    return markup.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
