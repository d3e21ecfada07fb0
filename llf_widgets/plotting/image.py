"""Charts as a PNG by matplotlib, for hosts without plotly.js: colors that suit both themes, two plain axes."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

from llf_widgets.plotting.colors import QUIET, hex_of
from llf_widgets.plotting.line_labels import moved_apart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_widgets.plotting.line_labels import LineEnd

GRAY = hex_of(QUIET)


def new_figure(width: float, height: float, dpi: int) -> Any:
    """An empty figure that no matplotlib back end shows.

    Args:
        width: inches.
        height: inches.
        dpi: pixels per inch.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=dpi)
    FigureCanvasAgg(figure)
    return figure


def png_of(figure: Any) -> bytes:
    """The figure as a PNG file with a transparent background."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", transparent=True)
    return buffer.getvalue()


def plain_axes(axes: Any, title: str, *, size: float = 9, x: float | None = None, outward: float = 0) -> None:
    """Remove decoration from axes, and set their title.

    Args:
        axes: matplotlib's axes.
        title: plain text.
        size: font size of the title, in points.
        x: left end of the title, as a share of the width of the axes.
        outward: distance of the axes from the lines, in points.
    """
    at = {} if x is None else {"x": x}
    axes.set_title(title, loc="left", **at, fontsize=size, fontweight="bold", color=GRAY, parse_math=False)
    axes.patch.set_alpha(0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(GRAY)
        if outward:
            axes.spines[side].set_position(("outward", outward))
    axes.tick_params(colors=GRAY, labelsize=8)


def write_shares(axes: Any) -> None:
    """Label the y axis in percent."""
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")


def label_ends(axes: Any, ends: Sequence[LineEnd], size: float) -> None:
    """Write labels at line ends, moved apart if they overlap.

    Args:
        axes: matplotlib's axes, with their final limits.
        ends: the labels.
        size: font size in points.
    """
    low, high = axes.get_ylim()
    inches = axes.figure.get_figheight() * axes.get_position().height
    points = [72 * inches * (end.y - low) / (high - low) for end in ends]
    for end, shift in zip(ends, moved_apart(points, size + 1.5), strict=True):
        write_label(axes, end, (6, shift), size)


def write_label(axes: Any, end: LineEnd, offset: tuple[float, float], size: float) -> None:
    """Write a label beside the end of a line.

    Args:
        axes: matplotlib's axes.
        end: the label.
        offset: points to the right of the line's end and above it.
        size: font size in points.
    """
    axes.annotate(
        end.text, (end.x, end.y), xytext=offset, textcoords="offset points", color=hex_of(end.color), fontsize=size,
        va="center", annotation_clip=False, parse_math=False,
    )  # fmt: skip
