"""The curves of several runs in two panels, over steps, tokens or time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.runs import decimate
from llf_core.runs.measures import GROUPS, HELD_OUT, lead, shown, within
from llf_core.runs.smoothing import label
from llf_widgets.monitor import words
from llf_widgets.monitor.curves import NOTHING
from llf_widgets.monitor.layout import AXIS, FONT, FORMATS, INK, QUIET, TONES, TRAINING, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.runs.measures import Form, Group
    from llf_widgets.monitor.watch import Watch

OVER = {"step": "step", "tokens": "tokens", "time": "minutes"}
SMOOTHING = (0, 5, 10, 30, 100)
"""Steps; 0 leaves the curve as it is."""
# A dash of its own for each tone: colour is never alone.
SERIES = tuple(zip(TONES, ("solid", "6px,3px", "2px,2px", "8px,3px,2px,3px"), strict=True))
UPPER, LOWER = [0.58, 1.0], [0.0, 0.42]
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


@dataclass(frozen=True)
class Choice:
    """A curve that can be shown.

    Attributes:
        name: as it is logged.
        label: for people.
        group: what it belongs to.
    """

    name: str
    label: str
    group: Group

    def titles(self) -> tuple[str, str]:
        """Of the panel of held-out examples and of that of the training."""
        if self.name == "loss":
            return "Evaluation loss", "Training loss"
        title = self.group.title if len(self.group.lines) == 1 else f"{self.group.title}: {self.label}"
        return f"Held out: {within(title)}", title


def choices(watches: Sequence[Watch]) -> list[Choice]:
    """The curves that there are, group by group.

    Args:
        watches: the runs, each looked at.
    """
    names = [lead(watches[0].series), *(name for watch in watches for name in watch.series)]
    return [Choice(name, label, one.group) for one in shown(names) for name, label in one.lines.items()]


def figure_json(
    watches: Sequence[Watch],
    *,
    curve: str = "loss",
    over: str = "step",
    log: bool = False,
    every: bool = False,
) -> dict[str, Any]:
    """One panel for what was held out and one for the training as plain Plotly JSON, arrays as numpy.

    Args:
        watches: the runs, each looked at.
        curve: the name of what is drawn; without held-out values of it in any of the runs there is one panel.
        over: the axis, one of `OVER`.
        log: a logarithmic scale, where the curve may have one.
        every: the value of every logged step beside the smoothed one.
    """
    choice = next((one for one in choices(watches) if one.name == curve), Choice(curve, curve, GROUPS[0]))
    held_out = curve == "loss" or any(HELD_OUT + curve in watch.series for watch in watches)
    data: list[dict[str, Any]] = []
    called = names(watches)
    for number, watch in enumerate(watches):
        color, dash = series(number)
        name = called[number]
        steps, values = watch.series.get(curve, NOTHING)
        smoothed = watch.smoothed.get(curve, values)
        evaluated, evaluation = watch.series.get(HELD_OUT + curve, NOTHING)
        form = choice.group.form
        tip = f"{_plain(name)}<br>{OVER[over]} %{{x:,.6g}}: %{{y:{FORMATS[form][1]}}}<extra></extra>"
        shared = {"type": "scatter", "showlegend": False, "cliponaxis": False, "hovertemplate": tip}
        shared |= {"name": watch.facts.id}
        line = {"color": color, "width": 1.75, "dash": dash}
        upper = shared | {"xaxis": "x", "yaxis": "y", "mode": "lines+markers", "line": line}
        lower = shared | {"xaxis": "x2", "yaxis": "y2", "mode": "lines"}
        points = _points(watch, evaluated, evaluation, over)
        drawn = _points(watch, steps, smoothed, over)
        if held_out:
            data.append(upper | {"marker": {"size": 5, "color": color}} | points)
        if every:
            thin = {"opacity": 0.4, "hoverinfo": "skip", "line": {"color": color, "width": 1}}
            data.append(lower | thin | _points(watch, steps, values, over))
        data.append(lower | {"line": line} | drawn)
        data += [_label(name, color, "", points, form)] if held_out else []
        data.append(_label(name, color, "2", drawn, form))
    shape = _layout(choice, over, held_out=held_out, log=log and choice.group.log, window=watches[0].window)
    return {"data": data, "layout": shape}


def _points(watch: Watch, steps: np.ndarray, values: np.ndarray, over: str) -> dict[str, Any]:
    x, y = decimate(steps, values, LIMIT)
    return {"x": places(watch, np.asarray(x), over), "y": np.where(np.isfinite(y), y, np.nan)}


def _label(name: str, color: str, axis: str, line: dict[str, Any], form: Form) -> dict[str, Any]:
    """A line's name and last value where it ends."""
    good = np.isfinite(line["y"]) & np.isfinite(line["x"])
    x, y = line["x"][good][-1:], line["y"][good][-1:]
    text = [f" {_plain(_short(name))} {words.value(float(value), form)}" for value in y]
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
    return plain(short)


def _layout(choice: Choice, over: str, *, held_out: bool, log: bool, window: int) -> dict[str, Any]:
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
    upper, lower = choice.titles()
    panels = [(0, upper, UPPER), (1, lower, LOWER)] if held_out else [(1, lower, [0.0, 1.0])]
    scale: dict[str, Any] = {"type": "log" if log else "linear", "tickformat": FORMATS[choice.group.form][0]}
    if choice.group.top is not None:
        scale |= {"range": [0, 1.03 * choice.group.top]}
    for number, title, domain in panels:
        suffix = str(number + 1) if number else ""
        below = {"title": {"text": OVER[over], "font": {"size": 11}}} if number else {}
        shape[f"xaxis{suffix}"] = axis | {"domain": [0, RIGHT], "anchor": f"y{suffix}", "rangemode": "tozero"} | below
        shape[f"yaxis{suffix}"] = axis | {"domain": domain, "anchor": f"x{suffix}"} | scale
        note = f", {label(window)}" if number and window else ""
        place = {"x": 0, "y": domain[1], "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom"}
        look = {"xshift": -44, "yshift": 6, "showarrow": False, "font": {"size": 12, "color": INK}}
        shape["annotations"].append({"text": f"<b>{plain(title)}</b>{note}"} | place | look)
    return shape
