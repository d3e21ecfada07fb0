"""Axes, colors, texts and layout of a Plotly figure, legible on light and dark themes, and labels of its lines."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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


# Middle tones with at least 4:1 on white and on #111. `plotly_colors.css` replaces each with a color of the theme, and
# knows it by its exact numbers.
TRAINING = "rgb(16, 127, 198)"
EVALUATION = "rgb(194, 93, 10)"
LINE_COLORS = (TRAINING, EVALUATION, "rgb(11, 133, 96)", "rgb(158, 89, 176)")
MUTED = "rgb(122, 122, 122)"
BAD = "rgb(221, 60, 60)"
INK, AXIS = "rgb(121, 121, 121)", "rgb(123, 123, 123)"  # MUTED to the eye, other tokens to the stylesheet
SOLID, DASHED, DOTTED = "solid", "6px,3px", "1.5px,3px"


def line_color(number: int) -> tuple[str, str]:
    """Color and dash of a line by its index in its chart. Colors repeat after four, then dotted."""
    return LINE_COLORS[number % len(LINE_COLORS)], SOLID if number < len(LINE_COLORS) else DOTTED


def evaluation_color(color: str, lines: int) -> str:
    """Color of an evaluation line: its own beside a single line, else that of its training line, with another dash."""
    return EVALUATION if lines == 1 else color


def faded(color: str) -> str:
    """The translucent color of an area, in Plotly's format, from `rgb(r, g, b)`."""
    return f"rgba{color.removeprefix('rgb').removesuffix(')')}, 0.15)"


def to_hex(color: str) -> str:
    """Convert `rgb(16, 127, 198)`, which Plotly and the stylesheet use, to matplotlib's hexadecimal format."""
    red, green, blue = (int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(","))
    return f"#{red:02x}{green:02x}{blue:02x}"


@dataclass(frozen=True)
class LineEnd:
    """The label at the last point of a line, whose color is `rgb(r, g, b)` with integers from 0 to 255."""

    x: float
    y: float
    text: str
    color: str


def end_labels(  # noqa: PLR0913 - the labels, and the axis that they stand at
    ends: Sequence[LineEnd], axes: Axes, pixels: float, reach: tuple[float, float], *, apart: float, size: int
) -> list[dict[str, Any]]:
    """The labels at line ends as Plotly annotations, in place of a legend.

    Args:
        ends: the labels; on a logarithmic axis with the logarithm of `y`, as Plotly expects it.
        reach: lower and upper end of the y axis, in the units of `ends`.
        apart: minimum distance between two labels, in pixels.
    """
    low, high = reach
    shifts = label_shifts([pixels * (end.y - low) / (high - low) for end in ends], apart)
    return [
        {
            "text": escape(end.text), "x": end.x, "y": end.y, **axes.reference, "xanchor": "left", "yanchor": "middle",
            "xshift": 5, "yshift": shift, "showarrow": False, "font": {"color": end.color, "size": size},
        }
        for end, shift in zip(ends, shifts, strict=True)
    ]  # fmt: skip


def value_range(lines: Iterable[np.ndarray], *, positive: bool = False) -> tuple[float, float]:
    """Lowest and highest finite value of all lines `[n]`, a little apart if they are equal.

    Without any value 0 and 1; if `positive`, values that a logarithmic axis cannot show are ignored, and the default is
    0.1 and 1.
    """
    every = np.concatenate([*lines, np.empty(0)])
    finite = every[np.isfinite(every) & ((every > 0) | (not positive))]
    if not finite.size:
        return (0.1, 1.0) if positive else (0.0, 1.0)
    low, high = float(finite.min()), float(finite.max())
    least = low * 1e-3 if positive else max(1e-12, abs(low) * 1e-9)
    return low, max(high, low + least)


def last_point(x: np.ndarray, y: np.ndarray) -> tuple[float, float] | None:
    """The last point of `x` and `y` `[n]` with finite coordinates; None if there is none."""
    finite = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    return (float(x[finite[-1]]), float(y[finite[-1]])) if finite.size else None


def label_shifts(heights: list[float], min_distance: float) -> list[float]:
    """Minimal shifts of labels so that neighbors are at least `min_distance` apart.

    The shifted heights are the least-squares fit under this constraint: isotonic regression of `heights - min_distance
    * rank` by pooling adjacent violators (Ayer et al., Ann. Math. Stat. 26, 1955).

    Args:
        heights: `[n]`, pixels, finite.

    Returns:
        `[n]` shifts in pixels, upwards positive, rounded to tenths.
    """
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    # Heights that touch form a heap, which stands around the mean of what its members want.
    heaps: list[tuple[list[int], float]] = []
    for place in order:
        heap, start = [place], heights[place]
        while heaps and heaps[-1][1] + min_distance * len(heaps[-1][0]) > start:
            heap = heaps.pop()[0] + heap
            start = sum(heights[one] - min_distance * number for number, one in enumerate(heap)) / len(heap)
        heaps.append((heap, start))
    moved = [0.0] * len(heights)
    for heap, start in heaps:
        for number, place in enumerate(heap):
            moved[place] = round(start + min_distance * number - heights[place], 1)
    return moved
