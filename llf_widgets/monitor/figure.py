"""The charts of one run as plain Plotly JSON: one figure, five panels, a fixed list of traces.

Colours are middle tones with at least 4.2:1 on white and on #111, so the figure can be read on either ground; inside a
live view `monitor.css` puts the theme's own tokens in their place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from llf_widgets.monitor import words

if TYPE_CHECKING:
    from llf_widgets.monitor.curves import Curves

TRAINING, EVALUATION, QUIET, BAD = (
    "rgb(16, 127, 198)",
    "rgb(194, 93, 10)",
    "rgb(122, 122, 122)",
    "rgb(221, 60, 60)",
)
INK, AXIS = (
    "rgb(121, 121, 121)",
    "rgb(123, 123, 123)",
)  # the same grey to the eye, two tokens to the stylesheet
FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
HEIGHT = 430
LOSS_RIGHT = 0.9  # the rest is for the labels at the ends of the lines
PANELS = {  # name -> (title, axis number, hover format)
    "learning_rate": ("Learning rate", 2, ".2e"),
    "grad_norm": ("Gradient norm", 3, ".3g"),
    "tokens_per_second": ("Tokens per second", 4, ",.0f"),
    "memory": ("Memory, GB", 5, ".3g"),
}
GAP = 0.055
LEFT = 44  # pixels left of an axis: its labels
WIDTH = (1 - GAP * (len(PANELS) - 1)) / len(PANELS)


def figure_json(curves: Curves, total: int, title: str = "") -> dict[str, Any]:
    """The whole figure, arrays as numpy, ready for `LiveFigure` or for `json_ready`.

    Args:
        curves: what to draw.
        total: planned steps, the right end of every step axis; 0 where unknown.
        title: a line above the charts; a live view has its own header and needs none.
    """
    layout = _layout(total, title)
    layout["annotations"] = annotations(curves)
    return {
        "data": [trace | content for trace, content in zip(_traces(), contents(curves), strict=True)],
        "layout": layout,
    }


def contents(curves: Curves) -> list[dict[str, Any]]:
    """What changes from tick to tick: x, y and texts of every trace, in the order of the figure's traces."""
    return [
        _line(curves, "loss"),
        _line(curves, "smoothed"),
        _line(curves, "eval_loss"),
        *(_line(curves, name) for name in PANELS),
        {
            "x": curves.kept,
            "y": np.full(curves.kept.size, 0.03),
        },
        {"x": curves.best, "y": np.full(curves.best.size, 0.03)},
        _attempts(curves.resumed),
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
                "y": 0.235,
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
                "y": 0.235,
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


def x_range(total: int) -> list[float] | None:
    """The step axis of a run of `total` steps; None lets Plotly choose."""
    return [0, total] if total > 0 else None


def _line(curves: Curves, name: str) -> dict[str, Any]:
    x, y = curves.lines[name]
    return {"x": x, "y": y}


def _last_only(size: int, text: str) -> list[str]:
    return [""] * (size - 1) + [text] if size else []


def _broken_text(curves: Curves) -> list[str]:
    return _last_only(curves.broken.size, f"not a finite number: {curves.broken_count:,} of the logged losses")


def _attempts(resumed: list[tuple[int, int]]) -> dict[str, Any]:
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for attempt, step in resumed:
        x += [step, step, None]
        y += [0, 0.9, None]
        text += ["", f" attempt {attempt}, from step {step}", ""]
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


def _traces() -> list[dict[str, Any]]:
    main = {"type": "scatter", "xaxis": "x", "yaxis": "y", "mode": "lines", "showlegend": False}
    marks = main | {
        "yaxis": "y6",
        "mode": "markers+text",
        "textposition": "middle right",
        "hoverinfo": "x",
        "textfont": {"size": 11, "color": QUIET},
        "cliponaxis": False,
    }
    label = main | {"mode": "text", "cliponaxis": False, "hoverinfo": "skip"}
    small = [
        main
        | {
            "name": title,
            "xaxis": f"x{axis}",
            "yaxis": f"y{axis}",
            "line": {"color": QUIET, "width": 1.25},
            "hovertemplate": f"step %{{x}}: %{{y:{form}}}<extra></extra>",
        }
        for title, axis, form in PANELS.values()
    ]
    return [
        main
        | {
            "name": "training, every step",
            "line": {"color": TRAINING, "width": 1},
            "opacity": 0.5,
            "hovertemplate": "step %{x}: training %{y:.4f}<extra></extra>",
        },
        main | {"name": "training, smoothed", "line": {"color": TRAINING, "width": 1.75}, "hoverinfo": "skip"},
        main
        | {
            "name": "evaluation",
            "mode": "lines+markers",
            "cliponaxis": False,
            "line": {"color": EVALUATION, "width": 1.75, "dash": "6px,3px"},
            "marker": {"color": EVALUATION, "size": 5.5},
            "hovertemplate": "step %{x}: evaluation %{y:.4f}<extra></extra>",
        },
        *small,
        marks | {"name": "checkpoints", "marker": {"symbol": "triangle-up", "size": 7, "color": QUIET}},
        marks | {"name": "best", "marker": {"symbol": "star", "size": 8, "color": EVALUATION}},
        marks
        | {
            "name": "attempts",
            "mode": "lines+text",
            "line": {"color": QUIET, "width": 1, "dash": "3px,3px"},
            "hoverinfo": "skip",
        },
        marks
        | {
            "name": "not finite",
            "marker": {"symbol": "x", "size": 7, "color": BAD},
            "textposition": "middle left",
            "textfont": {"size": 11, "color": BAD},
        },
        label | {"name": "training label", "textfont": {"size": 12, "color": TRAINING}},
        label | {"name": "evaluation label", "textfont": {"size": 12, "color": EVALUATION}},
    ]


def _layout(total: int, title: str) -> dict[str, Any]:
    axis = {
        "showgrid": False,
        "zeroline": False,
        "showline": True,
        "linecolor": AXIS,
        "linewidth": 1,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": AXIS,
        "tickfont": {"size": 11, "color": QUIET},
    }
    steps = axis | {"range": x_range(total), "autorange": total <= 0, "rangemode": "tozero", "nticks": 6}
    layout: dict[str, Any] = {
        "template": None,
        "autosize": True,
        "height": HEIGHT + (44 if title else 0),
        "showlegend": False,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hovermode": "closest",
        "dragmode": "zoom",
        "uirevision": "llf",
        "font": {"family": FONT, "size": 11, "color": QUIET},
        "margin": {"l": LEFT, "r": 12, "t": 30 + (44 if title else 0), "b": 28},
        "xaxis": steps | {"domain": [0, LOSS_RIGHT], "anchor": "y", "nticks": 8},
        "yaxis": axis | {"domain": [0.42, 1], "anchor": "x", "nticks": 5},
        "yaxis6": {"overlaying": "y", "range": [0, 1], "fixedrange": True, "visible": False, "anchor": "x"},
    }
    if title:
        layout["title"] = {
            "text": title,
            "x": 0,
            "xref": "paper",
            "xanchor": "left",
            "font": {"size": 15, "color": INK},
        }
    for place, (name, (_, number, _)) in enumerate(PANELS.items()):
        left = place * (WIDTH + GAP)
        layout[f"xaxis{number}"] = steps | {
            "domain": [left, left + WIDTH],
            "anchor": f"y{number}",
            "nticks": 4,
        }
        layout[f"yaxis{number}"] = axis | {
            "domain": [0, 0.235],
            "anchor": f"x{number}",
            "nticks": 3,
            "rangemode": "tozero",
        }
        if name == "learning_rate":
            layout[f"yaxis{number}"] |= {"exponentformat": "e", "showexponent": "all"}
        if name == "tokens_per_second":
            layout[f"yaxis{number}"] |= {"tickformat": ",d"}
    return layout
