"""Charts as a PNG by matplotlib, for hosts without plotly.js: colors that suit both themes, two plain axes."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

from llf_widgets.plotting.plotly_layout import MUTED, label_shifts, to_hex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from llf_widgets.plotting.plotly_layout import LineEnd

GRAY = to_hex(MUTED)
MARGIN = 0.05
"""Inches around what is drawn, at least."""


def new_figure(width: float, height: float, dpi: int) -> Figure:
    """An empty figure without pyplot, whose state threads would share."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi)
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: Figure) -> bytes:
    """The figure as PNG with a transparent background; it grows where a label reaches over its edge."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    box = Bbox.union([figure.bbox_inches, figure.get_tightbbox().padded(MARGIN)])
    buffer = BytesIO()
    figure.savefig(buffer, format="png", transparent=True, bbox_inches=box)
    return buffer.getvalue()


def plain_axes(axes: Axes, title: str, *, size: float = 9, x: float | None = None, outward: float = 0) -> None:
    """Remove decoration from axes, and set their title, whose left end is `x` as a share of the width of the axes."""
    heading = axes.set_title(title, loc="left", fontsize=size, fontweight="bold", color=GRAY, parse_math=False)
    if x is not None:
        heading.set_x(x)
    axes.patch.set_alpha(0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRAY)
        if outward:
            axes.spines[side].set_position(("outward", outward))
    axes.tick_params(colors=GRAY, labelsize=8)


def format_percent(axes: Axes) -> None:
    """Label the y axis in percent, for values from 0 to 1."""
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")


def draw_end_labels(axes: Axes, ends: Sequence[LineEnd], size: float) -> None:
    """Write labels at line ends of axes with final limits and a linear y axis, moved apart if they overlap."""
    low, high = axes.get_ylim()
    inches = axes.bbox.height / axes.figure.dpi
    points = [72 * inches * (end.y - low) / (high - low) for end in ends]
    for end, shift in zip(ends, label_shifts(points, size + 1.5), strict=True):
        draw_label(axes, end, (6, shift), size)


def draw_label(axes: Axes, end: LineEnd, offset: tuple[float, float], size: float) -> None:
    """Write a label beside the end of a line; `offset` is in points to the right and upwards."""
    axes.annotate(
        end.text, (end.x, end.y), xytext=offset, textcoords="offset points", color=to_hex(end.color), fontsize=size,
        va="center", annotation_clip=False, parse_math=False,
    )  # fmt: skip
