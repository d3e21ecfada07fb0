"""The curves of several runs in two panels, over steps, tokens or time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.runs import decimate
from llf_widgets.monitor import words
from llf_widgets.monitor.layout import AXIS, FONT, INK, QUIET, TRAINING
from llf_widgets.monitor.smoothing import smooth

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_widgets.monitor.watch import Watch

OVER = {"step": "step", "tokens": "tokens", "time": "minutes"}
SMOOTHING = (0, 5, 10, 30, 100)
"""Steps; 0 leaves the curve as it is."""
# Four tones with at least 4:1 on white and on #111, each with a dash of its own: colour is never alone.
SERIES = (
    ("rgb(16, 127, 198)", "solid"),
    ("rgb(194, 93, 10)", "6px,3px"),
    ("rgb(11, 133, 96)", "2px,2px"),
    ("rgb(158, 89, 176)", "8px,3px,2px,3px"),
)
PANELS = (("Evaluation loss", [0.58, 1.0]), ("Training loss", [0.0, 0.42]))
RIGHT = 0.86
HEIGHT = 520
LIMIT = 2000
PAUSE = 20.0
"""Times the usual time between two records after which the run stood still, as between two attempts."""


def series(number: int) -> tuple[str, str]:
    """Colour and dash of a run's lines."""
    tones = len(SERIES)
    return SERIES[number % tones][0], SERIES[(number + number // tones) % tones][1]


def names(watches: Sequence[Watch]) -> list[str]:
    """What the runs are called, without the words that all of them begin with; those of one name are numbered."""
    words = [(watch.facts.name or watch.facts.id).split(" ") for watch in watches]
    pairs = enumerate(zip(*words, strict=False))
    shared = next((place for place, several in pairs if len(set(several)) > 1), 0)
    given = [" ".join(one[shared:]) for one in words]
    return [
        name if given.count(name) == 1 else f"{name} ({given[: place + 1].count(name)})"
        for place, name in enumerate(given)
    ]


def places(watch: Watch, steps: np.ndarray, over: str) -> np.ndarray:
    """Where steps stand on an axis: as they are, in tokens read, or in minutes of training.

    Args:
        watch: the run.
        steps: `[n]`.
        over: one of `OVER`.

    Returns:
        `[n]`; NaN where it is not known.
    """
    if over == "step":
        return steps.astype(float)
    if over == "tokens":
        known, values = watch.series.get("tokens", (np.empty(0), np.empty(0)))
    else:
        known, moments = watch.times
        gaps = np.diff(moments, prepend=moments[:1])
        usual = float(np.median(gaps[1:])) if len(gaps) > 1 else 0.0
        values = np.cumsum(np.clip(gaps, 0, PAUSE * usual)) / 60
    if not len(known):
        return np.full(len(steps), np.nan)
    return np.interp(steps, known, values, left=0.0)


def figure_json(
    watches: Sequence[Watch],
    *,
    over: str = "step",
    smoothing: int = 10,
    log: bool = False,
    every: bool = False,
) -> dict[str, Any]:
    """Both panels as plain Plotly JSON, arrays as numpy.

    Args:
        watches: the runs, each looked at.
        over: the axis, one of `OVER`.
        smoothing: steps that the training loss is smoothed over.
        log: losses on a logarithmic scale.
        every: the training loss of every logged step beside the smoothed one.
    """
    data: list[dict[str, Any]] = []
    called = names(watches)
    for number, watch in enumerate(watches):
        color, dash = series(number)
        name = called[number]
        steps, loss = watch.series.get("loss", (np.empty(0, np.int64), np.empty(0)))
        smoothed = smooth(steps, loss, smoothing) if smoothing and len(steps) else loss
        evaluated, evaluation = watch.series.get("eval_loss", (np.empty(0, np.int64), np.empty(0)))
        tip = f"{_plain(name)}<br>{OVER[over]} %{{x:,.6g}}: %{{y:.4f}}<extra></extra>"
        shared = {"type": "scatter", "showlegend": False, "cliponaxis": False, "hovertemplate": tip}
        shared |= {"name": watch.facts.id}
        line = {"color": color, "width": 1.75, "dash": dash}
        upper = shared | {"xaxis": "x", "yaxis": "y", "mode": "lines+markers", "line": line}
        lower = shared | {"xaxis": "x2", "yaxis": "y2", "mode": "lines"}
        points = _points(watch, evaluated, evaluation, over)
        drawn = _points(watch, steps, smoothed, over)
        data.append(upper | {"marker": {"size": 5, "color": color}} | points)
        if every:
            thin = {"opacity": 0.4, "hoverinfo": "skip", "line": {"color": color, "width": 1}}
            data.append(lower | thin | _points(watch, steps, loss, over))
        data.append(lower | {"line": line} | drawn)
        data += [_label(name, color, "", points, 4), _label(name, color, "2", drawn, 3)]
    return {"data": data, "layout": _layout(over, log=log, smoothing=smoothing)}


def _points(watch: Watch, steps: np.ndarray, values: np.ndarray, over: str) -> dict[str, Any]:
    x, y = decimate(steps, values, LIMIT)
    return {"x": places(watch, np.asarray(x), over), "y": np.where(np.isfinite(y), y, np.nan)}


def _label(name: str, color: str, axis: str, line: dict[str, Any], digits: int) -> dict[str, Any]:
    """A line's name and last value where it ends."""
    good = np.isfinite(line["y"]) & np.isfinite(line["x"])
    x, y = line["x"][good][-1:], line["y"][good][-1:]
    text = [f" {_plain(_short(name))} {words.number(float(value), digits)}" for value in y]
    return {
        "type": "scatter", "mode": "text", "x": x, "y": y, "text": text, "textposition": "middle right",
        "textfont": {"size": 12, "color": color}, "cliponaxis": False, "showlegend": False, "hoverinfo": "skip",
        "xaxis": f"x{axis}", "yaxis": f"y{axis}",
    }  # fmt: skip


def _short(name: str) -> str:
    """A run of a sweep by its values alone: `learning_rate=0.001 lora_rank=8` as `0.001, 8:`."""
    values = [value for _, sign, value in (word.partition("=") for word in name.split(" ")) if sign]
    return f"{', '.join(values)}:" if len(values) == name.count(" ") + 1 else name


def _plain(name: str) -> str:
    """A run's name as Plotly's own markup shows it as text, cut to what fits."""
    short = name if len(name) <= 24 else name[:23] + "…"  # noqa: PLR2004 - what fits beside the axis
    return short.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _layout(over: str, *, log: bool, smoothing: int) -> dict[str, Any]:
    axis = {
        "showgrid": False, "zeroline": False, "showline": True, "linecolor": AXIS, "linewidth": 1, "ticks": "outside",
        "ticklen": 4, "tickcolor": AXIS, "tickfont": {"size": 11, "color": QUIET}, "nticks": 6,
    }  # fmt: skip
    shape: dict[str, Any] = {
        "template": {"layout": {"font": {"family": FONT}}},
        "autosize": True, "height": HEIGHT, "showlegend": False, "hovermode": "closest", "uirevision": over,
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": QUIET, "activecolor": TRAINING},
        "font": {"family": FONT, "size": 11, "color": QUIET},
        "margin": {"l": 44, "r": 12, "t": 30, "b": 40}, "annotations": [],
    }  # fmt: skip
    for number, (title, domain) in enumerate(PANELS):
        suffix = str(number + 1) if number else ""
        below = {"title": {"text": OVER[over], "font": {"size": 11}}} if number else {}
        shape[f"xaxis{suffix}"] = axis | {"domain": [0, RIGHT], "anchor": f"y{suffix}", "rangemode": "tozero"} | below
        shape[f"yaxis{suffix}"] = axis | {"domain": domain, "anchor": f"x{suffix}", "type": "log" if log else "linear"}
        note = f", smoothed over {smoothing} steps" if number and smoothing else ""
        place = {"x": 0, "y": domain[1], "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom"}
        look = {"xshift": -44, "yshift": 6, "showarrow": False, "font": {"size": 12, "color": INK}}
        shape["annotations"].append({"text": f"<b>{title}</b>{note}"} | place | look)
    return shape
