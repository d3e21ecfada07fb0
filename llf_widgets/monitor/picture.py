"""The loss curve as a PNG for saved notebooks: transparent ground, middle tones that both themes can show."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_widgets.monitor import words

if TYPE_CHECKING:
    from llf_widgets.monitor.curves import Curves

TRAINING, EVALUATION, QUIET, BAD = "#107fc6", "#c25d0a", "#7a7a7a", "#dd3c3c"
SIZE, DPI = (7.4, 3.1), 140


def picture(curves: Curves, total: int, title: str = "", line: str = "") -> bytes:
    """Draws loss and evaluation loss over the steps.

    Args:
        curves: what to draw.
        total: planned steps; 0 where unknown.
        title: the run's name and state, at the top: JupyterLab shows the picture alone.
        line: its key numbers, below the title.

    Returns:
        A PNG file's bytes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE, dpi=DPI)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.06, 0.11, 0.76, 0.67))
    for text, height, size, weight in ((title, 0.985, 10, "bold"), (line, 0.915, 8.5, "normal")):
        figure.text(0.01, height, text, color=QUIET, fontsize=size, fontweight=weight, va="top", parse_math=False)
    axes.plot(*curves.lines["loss"], color=TRAINING, linewidth=0.8, alpha=0.5)
    axes.plot(*curves.lines["smoothed"], color=TRAINING, linewidth=1.6)
    axes.plot(
        *curves.lines["eval_loss"],
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
    axes.set_title("Loss", loc="left", x=-0.05, fontsize=9, fontweight="bold", color=QUIET)
    _plain(axes, total)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", transparent=True)
    return buffer.getvalue()


def _label_ends(axes: Any, curves: Curves) -> None:
    """Writes each line's name and last value at its end, moved apart where they would touch."""
    ends = []
    for name, word, color, digits in (
        ("smoothed", "training", TRAINING, 3),
        ("eval_loss", "evaluation", EVALUATION, 4),
    ):
        x, y = curves.lines[name]
        good = np.isfinite(y)
        if good.any():
            ends.append(
                (
                    float(x[good][-1]),
                    float(y[good][-1]),
                    f"{word} {words.number(float(y[good][-1]), digits)}",
                    color,
                )
            )
    low, high = axes.get_ylim()
    near = len(ends) == 2 and abs(ends[0][1] - ends[1][1]) < 0.09 * (high - low)  # noqa: PLR2004 - both lines
    top = max((y for _, y, _, _ in ends), default=0.0)
    for x, y, text, color in ends:
        shift = (5 if y == top else -5) if near else 0
        axes.annotate(
            text,
            (x, y),
            xytext=(6, shift),
            textcoords="offset points",
            color=color,
            fontsize=9,
            va="center",
            annotation_clip=False,
        )


def _plain(axes: Any, total: int) -> None:
    """Two quiet axes and nothing else."""
    axes.patch.set_alpha(0)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(QUIET)
        axes.spines[side].set_position(("outward", 4))
    axes.tick_params(colors=QUIET, labelsize=8)
    axes.set_xlim(0, total if total > 0 else None)
    axes.xaxis.get_major_locator().set_params(integer=True)
