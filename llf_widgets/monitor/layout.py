"""How the charts of a run look: five panels, no grid, no legend, a transparent ground that suits both themes."""

from __future__ import annotations

from typing import Any

# Middle tones with at least 4.2:1 on white and on #111. `monitor.css` knows each by its exact numbers.
TRAINING = "rgb(16, 127, 198)"
EVALUATION = "rgb(194, 93, 10)"
QUIET = "rgb(122, 122, 122)"
BAD = "rgb(221, 60, 60)"
INK, AXIS = "rgb(121, 121, 121)", "rgb(123, 123, 123)"  # QUIET to the eye, other tokens to the stylesheet
FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
HEIGHT, TITLE_HEIGHT = 430, 44  # pixels
LOSS_RIGHT = 0.9  # the rest is for the labels at the ends of the lines
PANELS = {  # name -> (title, axis number, hover format)
    "learning_rate": ("Learning rate", 2, ".2e"),
    "grad_norm": ("Gradient norm", 3, ".3g"),
    "tokens_per_second": ("Tokens per second", 4, ",.0f"),
    "memory": ("Memory, GB", 5, ".3g"),
}
GAP = 0.075
LEFT = 44  # pixels left of an axis: its labels
WIDTH = (1 - GAP * (len(PANELS) - 1)) / len(PANELS)
TOOLS = [["zoom2d", "pan2d", "resetScale2d", "toImage"]]  # beside the charts while the pointer is over them
CONFIG = {"displaylogo": False, "modeBarButtons": TOOLS, "responsive": True}
SMALL_TOP = 0.235  # of the figure's height


def x_range(total: int) -> list[float] | None:
    """The step axis of a run of `total` steps; None lets Plotly choose."""
    return [0, total] if total > 0 else None


def traces() -> list[dict[str, Any]]:
    """How each trace is drawn, without its data."""
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


def layout(total: int, title: str, *, ticks: bool) -> dict[str, Any]:
    """Axes, margins and colours of the whole figure; without `ticks` the axes are bare, as nothing is drawn yet."""
    axis = {
        "showgrid": False,
        "zeroline": False,
        "showline": True,
        "linecolor": AXIS,
        "linewidth": 1,
        "ticks": "outside",
        "ticklen": 4,
        "tickcolor": AXIS,
        "showticklabels": ticks,
        "tickfont": {"size": 11, "color": QUIET},
    }
    steps = axis | {"range": x_range(total), "autorange": total <= 0, "rangemode": "tozero", "nticks": 6}
    shape: dict[str, Any] = {
        "template": {"layout": {"font": {"family": FONT}}},  # Plotly's own takes 0.2 s to build and 8 kB to send
        "autosize": True,
        "height": HEIGHT + (TITLE_HEIGHT if title else 0),
        "showlegend": False,
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hovermode": "closest",
        "dragmode": "zoom",
        "uirevision": "llf",
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": QUIET, "activecolor": TRAINING},
        "font": {"family": FONT, "size": 11, "color": QUIET},
        "margin": {"l": LEFT, "r": 12, "t": 30 + (TITLE_HEIGHT if title else 0), "b": 28},
        "xaxis": steps | {"domain": [0, LOSS_RIGHT], "anchor": "y", "nticks": 8},
        "yaxis": axis | {"domain": [0.42, 1], "anchor": "x", "nticks": 5},
        "yaxis6": {"overlaying": "y", "range": [0, 1], "fixedrange": True, "visible": False, "anchor": "x"},
    }
    if title:
        shape["title"] = {
            "text": title,
            "x": 0,
            "xref": "paper",
            "xanchor": "left",
            "font": {"size": 15, "color": INK},
        }
    for place, (name, (_, number, _)) in enumerate(PANELS.items()):
        left = place * (WIDTH + GAP)
        shape[f"xaxis{number}"] = steps | {
            "domain": [left, left + WIDTH],
            "anchor": f"y{number}",
            "nticks": 4,
        }
        shape[f"yaxis{number}"] = axis | {
            "domain": [0, SMALL_TOP],
            "anchor": f"x{number}",
            "nticks": 3,
            "rangemode": "tozero",
        }
        if name == "learning_rate":
            # `0.0005` is wider than the room left of the axis
            shape[f"yaxis{number}"] |= {"tickformat": "~e", "labelalias": {"0e+0": "0"}}
        if name == "tokens_per_second":
            shape[f"yaxis{number}"] |= {"tickformat": ",d"}
    return shape
