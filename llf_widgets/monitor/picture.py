"""The curves as a PNG for saved notebooks, with colors that suit both themes."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.runs.metric_catalog import EVAL_PREFIX
from llf_widgets.monitor import formatting
from llf_widgets.monitor.curves import NOTHING
from llf_widgets.monitor.figure import moved_apart
from llf_widgets.monitor.layout import held_out_tone, tones

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.runs.metric_catalog import Form, LoggedGroup
    from llf_widgets.monitor.curves import Curves

    End = tuple[float, float, str, str]  # x, y, words, colour

TRAINING, EVALUATION, QUIET, BAD = "#107fc6", "#c25d0a", "#7a7a7a", "#dd3c3c"
WIDTH, LARGE, ROW, DPI = 7.4, 3.1, 1.75, 140  # inches
GROUPS = 4  # charts below the large one: a picture is looked at as a whole


def picture(curves: Curves, total: int, title: str = "", line: str = "") -> bytes:
    """Draw the primary metric over the steps, and the first other groups below.

    Args:
        curves: the data.
        total: planned steps; 0 if unknown.
        title: name and state of the run, at the top since JupyterLab shows the image alone.
        line: key numbers, below the title.

    Returns:
        Bytes of a PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = curves.groups[:GROUPS]
    below = ROW * -(-len(shown) // 2)
    height = LARGE + below
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.06, (below + 0.11 * LARGE) / height, 0.76, 0.67 * LARGE / height))
    for text, down, size, weight in ((title, 0.015, 10, "bold"), (line, 0.085, 8.5, "normal")):
        place = 1 - down * LARGE / height
        figure.text(0.01, place, text, color=QUIET, fontsize=size, fontweight=weight, va="top", parse_math=False)
    axes.plot(*curves.line(curves.lead), color=TRAINING, linewidth=0.8, alpha=0.5)
    axes.plot(*curves.smooth.get(curves.lead, NOTHING), color=TRAINING, linewidth=1.6)
    axes.plot(
        *curves.line(EVAL_PREFIX + curves.lead),
        color=EVALUATION,
        linewidth=1.6,
        linestyle=(0, (5, 2)),
        marker="o",
        markersize=3,
        clip_on=False,
    )
    _label_ends(axes, curves)
    for number, (step, words_of_it) in enumerate(curves.marks):
        axes.axvline(step, color=QUIET, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.annotate(
            f" {words_of_it}",
            (step, 1 - 0.1 * (number % 3)),
            xycoords=("data", "axes fraction"),
            color=QUIET,
            fontsize=8,
            va="top",
        )
    if curves.broken_count:
        axes.plot(
            curves.broken,
            np.full(curves.broken.size, 0.97),
            "x",
            color=BAD,
            markersize=5,
            transform=axes.get_xaxis_transform(),
        )
    axes.set_title(curves.main.group.title, loc="left", x=-0.05, fontsize=9, fontweight="bold", color=QUIET)
    _plain(axes, total)
    for number, one in enumerate(shown):
        row, column = divmod(number, 2)
        bottom = below - ROW * (row + 1) + 0.32
        place = (0.075 + 0.5 * column, bottom / height, 0.3, (ROW - 0.8) / height)
        _draw_group(figure.add_axes(place), one, curves, total)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", transparent=True)
    return buffer.getvalue()


def _draw_group(axes: Any, one: LoggedGroup, curves: Curves, total: int) -> None:
    """Smoothed lines of a group, and dashed validation lines."""
    ends: list[End] = []
    for number, (name, label) in enumerate(one.lines.items()):
        tone, _ = tones(number)
        other = hex_of(held_out_tone(one, tone))
        axes.plot(*curves.line(name), color=hex_of(tone), linewidth=0.6, alpha=0.35)
        axes.plot(*curves.smooth.get(name, NOTHING), color=hex_of(tone), linewidth=1.3)
        held_out = curves.line(EVAL_PREFIX + name)
        axes.plot(*held_out, color=other, linewidth=1.3, linestyle=(0, (5, 2)), marker="o", markersize=2)
        ends += _end(curves, name, label, hex_of(tone), one.group.form)
        ends += _end(curves, EVAL_PREFIX + name, "held out", other, one.group.form) if len(one.lines) == 1 else []
    group = one.group
    if group.level is not None:
        axes.axhline(group.level, color=QUIET, linewidth=0.7, linestyle=(0, (2, 3)), zorder=0)
    if group.top is not None:
        axes.set_ylim(0, 1.03 * group.top)
    if group.form == "share":
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    _label(axes, ends, 8)
    axes.set_title(group.title, loc="left", x=-0.12, fontsize=8.5, fontweight="bold", color=QUIET, parse_math=False)
    _plain(axes, total)
    axes.locator_params(axis="y", nbins=4)


def _label_ends(axes: Any, curves: Curves) -> None:
    """Name and last value at the end of each line."""
    form, first = curves.main.group.form, curves.lead
    ends = _end(curves, first, curves.main.lines[first], TRAINING, form)
    _label(axes, ends + _end(curves, EVAL_PREFIX + first, "evaluation", EVALUATION, form), 9)


def _end(curves: Curves, name: str, word: str, color: str, form: Form) -> list[End]:
    """Position and text of a line's label; empty for a line without points."""
    x, y = curves.line(name)
    good = np.isfinite(y)
    if not good.any():
        return []
    return [(float(x[good][-1]), float(y[good][-1]), f"{word} {formatting.value(curves.last[name], form)}", color)]


def _label(axes: Any, ends: Sequence[End], size: float) -> None:
    """Write labels at line ends, moved apart if they overlap."""
    low, high = axes.get_ylim()
    inches = axes.figure.get_figheight() * axes.get_position().height
    points = [72 * inches * (y - low) / (high - low) for _, y, _, _ in ends]
    for (x, y, text, color), shift in zip(ends, moved_apart(points, size + 1.5), strict=True):
        axes.annotate(
            text,
            (x, y),
            xytext=(6, shift),
            textcoords="offset points",
            color=color,
            fontsize=size,
            va="center",
            annotation_clip=False,
            parse_math=False,
        )


def hex_of(color: str) -> str:
    """Convert `rgb(16, 127, 198)` to matplotlib's hexadecimal format."""
    red, green, blue = (int(part) for part in color[4:-1].split(","))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _plain(axes: Any, total: int) -> None:
    """Two plain axes without decoration."""
    axes.patch.set_alpha(0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(QUIET)
        axes.spines[side].set_position(("outward", 4))
    axes.tick_params(colors=QUIET, labelsize=8)
    axes.set_xlim(0, total if total > 0 else None)
    axes.xaxis.get_major_locator().set_params(integer=True)
