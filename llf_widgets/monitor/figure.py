"""The charts of one run as plain Plotly JSON: what is in the traces of the one figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from llf_widgets.monitor import words
from llf_widgets.monitor.layout import GAP, INK, LEFT, PANELS, QUIET, SMALL_TOP, WIDTH, layout, traces

if TYPE_CHECKING:
    from llf_widgets.monitor.curves import Curves


HEIGHTS = (0.9, 0.8, 0.7)
"""Of neighbouring marks, so that their words do not stand on each other."""


def figure_json(curves: Curves, total: int, title: str = "") -> dict[str, Any]:
    """The whole figure, arrays as numpy, ready for `LiveFigure` or for `json_ready`.

    Args:
        curves: what to draw.
        total: planned steps, the right end of every step axis; 0 where unknown.
        title: a line above the charts; a live view has its own header and needs none.
    """
    shape = layout(total, title, ticks=curves.points > 0) | {"annotations": annotations(curves)}
    return {
        "data": [trace | content for trace, content in zip(traces(), contents(curves), strict=True)],
        "layout": shape,
    }


def contents(curves: Curves) -> list[dict[str, Any]]:
    """What changes from tick to tick: x, y and texts of every trace, in the order of the figure's traces."""
    return [
        _line(curves, "loss"),
        _line(curves, "smoothed"),
        _line(curves, "eval_loss"),
        *(_line(curves, name) for name in PANELS),
        {"x": curves.kept, "y": np.full(curves.kept.size, 0.03)},
        {"x": curves.best, "y": np.full(curves.best.size, 0.03)},
        _marks(curves.marks),
        {"x": curves.broken, "y": np.full(curves.broken.size, 0.97), "text": _broken_text(curves)},
        _end_label(curves, "smoothed", "eval_loss", "training"),
        _end_label(curves, "eval_loss", "smoothed", "evaluation"),
    ]


def annotations(curves: Curves) -> list[dict[str, Any]]:
    """Titles of the panels, and each small panel's last value at its upper right corner."""
    plain = {"showarrow": False, "xref": "paper", "yref": "paper", "yanchor": "bottom"}
    notes = [
        plain
        | {
            "text": "<b>Loss</b>",
            "x": 0,
            "y": 1,
            "xanchor": "left",
            "xshift": -LEFT,
            "yshift": 6,
            "font": {"color": INK, "size": 12},
        },
        plain
        | {
            "text": "thick: smoothed, thin: every logged step, dashed: evaluation, ▲ checkpoint, ★ best",
            "x": 0,
            "y": 1,
            "xanchor": "left",
            "yshift": 6,
            "font": {"color": QUIET, "size": 11},
        },
    ]
    for place, (name, (title, _, _)) in enumerate(PANELS.items()):
        left = place * (WIDTH + GAP)
        _, y = curves.lines[name]
        value = "" if y.size == 0 else (words.small if name == "learning_rate" else words.number)(float(y[-1]))
        notes.append(
            plain
            | {
                "text": f"<b>{title}</b>",
                "x": left,
                "y": SMALL_TOP,
                "xanchor": "left",
                "xshift": -LEFT,
                "yshift": 8,
                "font": {"color": INK, "size": 12},
            }
        )
        notes.append(
            plain
            | {
                "text": value,
                "x": left + WIDTH,
                "y": SMALL_TOP,
                "xanchor": "right",
                "yshift": 8,
                "font": {"color": INK, "size": 12},
            }
        )
    return notes


def json_ready(figure: dict[str, Any]) -> dict[str, Any]:
    """The figure with lists in place of arrays, seven significant digits, and None where a number is not finite."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        if isinstance(value, np.ndarray):
            if np.issubdtype(value.dtype, np.integer):
                return value.tolist()
            return [float(f"{number:.7g}") if np.isfinite(number) else None for number in value.tolist()]
        return value

    return plain(figure)


def _line(curves: Curves, name: str) -> dict[str, Any]:
    x, y = curves.lines[name]
    return {"x": x, "y": y}


def _last_only(size: int, text: str) -> list[str]:
    return [""] * (size - 1) + [text] if size else []


def _broken_text(curves: Curves) -> list[str]:
    return _last_only(curves.broken.size, f"not a finite number: {curves.broken_count:,} of the logged losses")


def _marks(marks: list[tuple[int, str]]) -> dict[str, Any]:
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for number, (step, words_of_it) in enumerate(marks):
        x += [step, step, None]
        y += [0, HEIGHTS[number % len(HEIGHTS)], None]
        text += ["", f" {words_of_it}", ""]
    return {"x": x, "y": y, "text": text}


def _end_label(curves: Curves, name: str, other: str, word: str) -> dict[str, Any]:
    """A line's name and last value at its end; the upper of two near labels goes up, the lower down."""
    x, y = _finite(curves.lines[name])
    if x.size == 0:
        return {"x": x, "y": y, "text": [], "textposition": "middle right"}
    position = "middle right"
    _, other_y = _finite(curves.lines[other])
    if other_y.size:
        _, loss = _finite(curves.lines["loss"])
        shown = np.concatenate([loss, y, other_y])
        if abs(y[-1] - other_y[-1]) < 0.12 * max(float(np.ptp(shown)), 1e-12):
            above = y[-1] > other_y[-1] or (y[-1] == other_y[-1] and name == "smoothed")
            position = "top right" if above else "bottom right"
    digits = 4 if name == "eval_loss" else 3
    return {
        "x": x[-1:],
        "y": y[-1:],
        "text": [f" {word} {words.number(float(y[-1]), digits)}"],
        "textposition": position,
    }


def _finite(line: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    x, y = line
    good = np.isfinite(y)
    return x[good], y[good]
