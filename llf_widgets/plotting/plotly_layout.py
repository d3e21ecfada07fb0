"""Axes, texts, layout (no grid, no legend, a transparent background for both themes) and arrays of a Plotly figure."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_widgets.plotting.colors import AXIS, INK, MUTED, TRAINING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llf_core.runs.charts import Chart, Form

FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
LEFT = 50  # pixels left of an axis: its labels
TOOLS = [["zoom2d", "pan2d", "resetScale2d", "toImage"]]  # beside the charts while the pointer is over them
CONFIG = {"modeBarButtons": TOOLS}
TICKS: Mapping[Form, str] = {"number": "", "share": ".0%", "count": ",d", "rate": "~e", "bytes": ""}
"""Number format of an axis, in d3's notation."""
HOVER: Mapping[Form, str] = {"number": ".4g", "share": ".1%", "count": ",.0f", "rate": ".2e", "bytes": ".3g"}
"""Number format of a hover text."""
MARGIN = 1.03
"""Upper end of an axis whose maximum is known, as a multiple of it."""


@dataclass(frozen=True)
class Axes:
    """The axes of a chart by Plotly's numbers from 1, which differ where a chart has two y axes."""

    x: int
    y: int

    @classmethod
    def numbered(cls, number: int) -> Axes:
        """The axes of the chart with this number, from 1."""
        return cls(number, number)

    @property
    def trace(self) -> dict[str, str]:
        """The attributes that put a trace on these axes, by Plotly's names for traces: `x2`, `y2`."""
        return {"xaxis": f"x{_suffix(self.x)}", "yaxis": f"y{_suffix(self.y)}"}

    @property
    def reference(self) -> dict[str, str]:
        """The attributes of an annotation or a shape in the units of these axes."""
        return {"xref": self.trace["xaxis"], "yref": self.trace["yaxis"]}

    @property
    def layout(self) -> tuple[str, str]:
        """The names of the x and the y axis in the layout."""
        return f"xaxis{_suffix(self.x)}", f"yaxis{_suffix(self.y)}"

    def described(self, title: str) -> dict[str, str]:
        """These axes as an entry of the layout's `meta.charts`, by which a front end or an image finds a chart."""
        x, y = self.layout
        return {
            "title": escape(title),
            "x": self.trace["xaxis"],
            "y": self.trace["yaxis"],
            "xaxis": x,
            "yaxis": y,
        }


def _suffix(number: int) -> str:
    return "" if number == 1 else str(number)


def base_layout(
    height: float, charts: Iterable[dict[str, str]], margin: Mapping[str, float], uirevision: str
) -> dict[str, Any]:
    """The layout of a figure without its axes, texts and shapes.

    Args:
        charts: `Axes.described` of each chart.
        margin: `r`, `t` and `b`, the pixels right of, above and below all charts.
        uirevision: as long as it is the same, Plotly keeps what a reader has zoomed into.
    """
    return {
        "template": {"layout": {"font": {"family": FONT}}},  # Plotly's own takes 0.2 s to build and 8 kB to send
        "autosize": True,
        "height": height,
        "showlegend": False,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hovermode": "closest",
        "dragmode": "zoom",
        "uirevision": uirevision,
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": MUTED, "activecolor": TRAINING},
        "font": {"family": FONT, "size": 11, "color": MUTED},
        "margin": {"l": LEFT, **margin},
        "meta": {"charts": list(charts)},
    }


def plain_axis(**more: object) -> dict[str, Any]:
    """An axis without grid, with short ticks outside."""
    return {
        "showgrid": False,
        "zeroline": False,
        "showline": True,
        "linecolor": AXIS,
        "linewidth": 1,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": AXIS,
        "tickfont": {"size": 11, "color": MUTED},
        **more,
    }


def maximum_range(chart: Chart) -> dict[str, Any]:
    """The range of an axis with a known maximum, with some room above it (`MARGIN`); empty for others."""
    return {} if chart.maximum is None else {"range": [0, MARGIN * chart.maximum]}


def escape(text: str) -> str:
    """Escape a name, which is untrusted, for Plotly's markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("%{", "% {")


def heading(text: str, x: float, y: float, up: float) -> dict[str, Any]:
    """A chart's title as an annotation above its upper left corner."""
    return note(text, x, y, up) | {"xshift": -LEFT, "font": {"color": INK, "size": 12}}


def note(text: str, x: float, y: float, up: float) -> dict[str, Any]:
    """Secondary text above a position of the figure."""
    return {
        "text": text, "x": x, "y": y, "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom",
        "yshift": up, "showarrow": False, "font": {"color": MUTED, "size": 11},
    }  # fmt: skip


DTYPES = {"f": np.dtype("<f4"), "i": np.dtype("<i4"), "u": np.dtype("<i4")}
"""Target dtype by kind of numpy array."""
NAMES = {np.dtype("<f4"): "f4", np.dtype("<i4"): "i4"}


def encode_arrays(value: object) -> Any:
    """Encode each array of a figure as `{"dtype": "f4" | "i4", "bdata": base64}`, plotly.js's format of typed arrays.

    Floats keep seven significant digits, up to 3.4e38; integers have to fit 32 bits, as steps do. NaN and infinities
    are preserved, unlike in JSON.
    """
    if isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value, dtype=DTYPES[value.dtype.kind])
        return {"dtype": NAMES[array.dtype], "bdata": base64.b64encode(array.tobytes()).decode("ascii")}
    if isinstance(value, dict):
        return {key: encode_arrays(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [encode_arrays(inner) for inner in value]
    return value
