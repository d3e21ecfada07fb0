"""The curves of several runs in two panels, by step, tokens or time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.runs import decimate
from llf_core.runs.metric_catalog import EVAL_PREFIX, GROUPS, logged_groups, lowercase_label, primary_metric
from llf_core.runs.smoothing import label
from llf_core.runs.summary_numbers import line
from llf_widgets.compare.labels import labels, middle
from llf_widgets.compare.ticks import log_ticks
from llf_widgets.monitor import formatting
from llf_widgets.monitor.figure import moved_apart
from llf_widgets.monitor.layout import AXIS, CONFIG, FONT, FORMATS, INK, QUIET, TONES, TRAINING, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llf_core.runs.metric_catalog import Group
    from llf_widgets.monitor.run_tracker import RunTracker

OVER = {"step": "step", "tokens": "tokens", "time": "minutes"}
PLACE = {"step": "step %{x:,d}", "tokens": "%{x:,d} tokens", "time": "%{x:.1f} minutes"}
"""Hover format of the x value."""
# A dash of its own for each tone: colour is never alone.
SERIES = tuple(zip(TONES, ("solid", "6px,3px", "2px,2px", "8px,3px,2px,3px"), strict=True))
UPPER, LOWER = [0.58, 1.0], [0.0, 0.42]
HEIGHT, TOP, BOTTOM = 500, 30, 40  # pixels
SHOWN = 18  # letters of what a run is called, where its line ends
LETTER = 6.6  # pixels of a letter of a label
LINE = 14  # pixels between two labels
LIMIT = 1000  # points a line
PAUSE = 20.0
"""A gap of this multiple of the usual time between records counts as a pause, such as between attempts."""


def series(number: int) -> tuple[str, str]:
    """Color and dash style of a run's lines."""
    tones = len(SERIES)
    return SERIES[number % tones][0], SERIES[(number + number // tones) % tones][1]


def places(watch: RunTracker, steps: np.ndarray, over: str) -> np.ndarray:
    """Convert steps to x values: steps, tokens processed, or minutes of training.

    Args:
        watch: the run.
        steps: `[n]`.
        over: one of `OVER`.

    Returns:
        `[n]`; NaN where unknown.
    """
    if over == "step":
        return steps.astype(float)
    if over == "tokens":
        known, values = line(watch.series, "tokens")
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
    """A curve that can be displayed.

    Attributes:
        name: metric, as logged.
        label: display label.
        group: its group.
    """

    name: str
    label: str
    group: Group

    def titles(self) -> tuple[str, str]:
        """Titles of the validation panel and of the training panel."""
        if self.name == "loss":
            return "Evaluation loss", "Training loss"
        title = self.group.title if len(self.group.lines) == 1 else f"{self.group.title}: {self.label}"
        return f"Held out: {lowercase_label(title)}", title


def choices(watches: Sequence[RunTracker]) -> list[Choice]:
    """The available curves, by group.

    Args:
        watches: the runs, already read.
    """
    names = [primary_metric(watches[0].series), *(name for watch in watches for name in watch.series)]
    return [Choice(name, label, one.group) for one in logged_groups(names) for name, label in one.lines.items()]


@dataclass(frozen=True)
class Drawn:
    """A line in a panel.

    Attributes:
        run: index of the run.
        called: label of the run.
        x: `[n]` x values.
        y: `[n]` y values; NaN if not finite.
        logged: `[n]` values before smoothing, if `y` is smoothed.
    """

    run: int
    called: str
    x: np.ndarray
    y: np.ndarray
    logged: np.ndarray | None = None

    @property
    def end(self) -> tuple[float, float] | None:
        """The last point."""
        good = np.flatnonzero(np.isfinite(self.y) & np.isfinite(self.x))
        return (float(self.x[good[-1]]), float(self.y[good[-1]])) if good.size else None


def figure_json(
    watches: Sequence[RunTracker], *, curve: str = "loss", over: str = "step", log: bool = False, every: bool = False
) -> dict[str, Any]:
    """Build a validation panel and a training panel as Plotly JSON with numpy arrays.

    Args:
        watches: the runs, already read and smoothed over the same window.
        curve: the metric; without validation values in any run there is only one panel.
        over: the x axis, one of `OVER`.
        log: logarithmic y axis, if the metric supports it.
        every: show every logged value next to the smoothed line.
    """
    choice = next((one for one in choices(watches) if one.name == curve), Choice(curve, curve, GROUPS[0]))
    window = watches[0].window
    upper, lower = [], []
    for number, (watch, called) in enumerate(zip(watches, labels(watches), strict=True)):
        steps, values = line(watch.series, curve)
        lower.append(_drawn(number, called, watch, steps, watch.smoothed.get(curve, values), over, values))
        upper.append(_drawn(number, called, watch, *line(watch.series, EVAL_PREFIX + curve), over))
    log = log and choice.group.log
    held_out, training = choice.titles()
    if any(one.y.size for one in upper):
        panels = [_Panel("", held_out, UPPER, upper, 0), _Panel("2", training, LOWER, lower, window)]
    else:
        panels = [_Panel("2", training, [0.0, 1.0], lower, window)]
    data = [trace for panel in panels for trace in _traces(panel, choice, over, every=every)]
    return {"data": data, "layout": _layout(panels, choice, over, log=log), "config": CONFIG}


@dataclass(frozen=True)
class _Panel:
    axis: str
    title: str
    domain: list[float]
    lines: list[Drawn]
    window: int  # of steps, where its lines are smoothed


def _drawn(  # noqa: PLR0913, PLR0917 - a line and where it comes from
    number: int, called: str, watch: RunTracker, steps: np.ndarray, values: np.ndarray, over: str,
    logged: np.ndarray | None = None,
) -> Drawn:  # fmt: skip
    x, y = decimate(steps, values, LIMIT)
    raw = None if logged is None else logged[np.searchsorted(steps, x)]
    return Drawn(number, called, places(watch, np.asarray(x), over), np.where(np.isfinite(y), y, np.nan), raw)


def _traces(panel: _Panel, choice: Choice, over: str, *, every: bool) -> list[dict[str, Any]]:
    """Lines of a panel, thin unsmoothed ones first."""
    common = {"type": "scatter", "showlegend": False, "cliponaxis": False}
    common |= {"xaxis": f"x{panel.axis}", "yaxis": f"y{panel.axis}"}
    found, form = [], choice.group.form
    for one in panel.lines:
        color, dash = series(one.run)
        look = {"mode": "lines", "line": {"color": color, "width": 1.75, "dash": dash}}
        if not panel.window:
            look |= {"mode": "lines+markers", "marker": {"size": 5, "color": color}} if not panel.axis else {}
        told = [[formatting.value(float(value), form)] for value in one.y]
        says = f"{plain(one.called)}<br>{PLACE[over]}: %{{customdata[0]}}"
        if panel.window and one.logged is not None:
            told = [
                [text, formatting.value(float(value), form)] for (text,), value in zip(told, one.logged, strict=True)
            ]
            says += f", {label(panel.window)}<br>logged: %{{customdata[1]}}"
        if every and panel.window and one.logged is not None:
            thin = {"mode": "lines", "opacity": 0.4, "hoverinfo": "skip", "line": {"color": color, "width": 1}}
            values = np.where(np.isfinite(one.logged), one.logged, np.nan)
            found.append(common | thin | {"name": f"{one.called}, every step", "x": one.x, "y": values})
        hover = {"customdata": told, "hovertemplate": f"{says}<extra></extra>"}
        found.append(common | look | hover | {"name": one.called, "x": one.x, "y": one.y})
    return found


def _layout(panels: list[_Panel], choice: Choice, over: str, *, log: bool) -> dict[str, Any]:
    axis = {
        "showgrid": False, "zeroline": False, "showline": True, "linecolor": AXIS, "linewidth": 1, "ticks": "outside",
        "ticklen": 4, "tickcolor": AXIS, "tickfont": {"size": 11, "color": QUIET}, "nticks": 6,
    }  # fmt: skip
    notes = [note for panel in panels for note in (_title(panel), *_ends(panel, choice, log=log))]
    longest = max((len(note["text"]) for note in notes if note["xref"] != "paper"), default=0)
    shape: dict[str, Any] = {
        "template": {"layout": {"font": {"family": FONT}}},
        "autosize": True, "height": HEIGHT, "showlegend": False, "hovermode": "closest", "uirevision": f"{over}{log}",
        "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": QUIET, "activecolor": TRAINING},
        "font": {"family": FONT, "size": 11, "color": QUIET},
        "margin": {"l": 50, "r": 12 + round(LETTER * longest), "t": TOP, "b": BOTTOM}, "annotations": notes,
    }  # fmt: skip
    for panel in panels:
        below = {"title": {"text": OVER[over], "font": {"size": 11}}} if panel.axis else {}
        form = {"tickformat": "~s" if over == "tokens" else ",d" if over == "step" else ""}
        place = {"domain": [0, 1], "anchor": f"y{panel.axis}", "rangemode": "tozero"}
        shape[f"xaxis{panel.axis}"] = axis | place | form | below
        scale = _log_scale(panel, choice) if log and _positive(panel) else _scale(choice)
        shape[f"yaxis{panel.axis}"] = axis | {"domain": panel.domain, "anchor": f"x{panel.axis}"} | scale
    return shape


def _scale(choice: Choice) -> dict[str, Any]:
    scale: dict[str, Any] = {"type": "linear", "tickformat": FORMATS[choice.group.form][0], "exponentformat": "e"}
    return scale | ({} if choice.group.top is None else {"range": [0, 1.03 * choice.group.top]})


def _log_scale(panel: _Panel, choice: Choice) -> dict[str, Any]:
    """A logarithmic axis with readable ticks."""
    low, high = _reach(panel, log=True)
    ticks = log_ticks(low, high)
    texts = [
        _tick(value) if choice.group.form == "number" else formatting.value(value, choice.group.form) for value in ticks
    ]
    return {"type": "log", "tickmode": "array", "tickvals": ticks, "ticktext": texts}


def _tick(value: float) -> str:
    """Tick label without trailing zeros: `0.1`, `5e-4`."""
    text = formatting.number(value)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def _positive(panel: _Panel) -> bool:
    """Whether a logarithmic axis has positive values to show."""
    return any((one.y > 0).any() for one in panel.lines)


def _reach(panel: _Panel, *, log: bool) -> tuple[float, float]:
    """Range of the y values of a panel."""
    every = np.concatenate([one.y for one in panel.lines] or [np.empty(0)])
    good = every[np.isfinite(every) & ((every > 0) | (not log))]
    if not good.size:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = float(good.min()), float(good.max())
    return low, max(high, low * 1.001 if log else low + 1e-12)


def _title(panel: _Panel) -> dict[str, Any]:
    note = f", {label(panel.window)}" if panel.window else ""
    return {
        "text": f"<b>{plain(panel.title)}</b>{note}", "x": 0, "y": panel.domain[1], "xref": "paper", "yref": "paper",
        "xanchor": "left", "yanchor": "bottom", "xshift": -50, "yshift": 6, "showarrow": False,
        "font": {"size": 12, "color": INK},
    }  # fmt: skip


def _ends(panel: _Panel, choice: Choice, *, log: bool) -> list[dict[str, Any]]:
    """Labels with name and last value at the end of each line, moved apart if they overlap."""
    log = log and _positive(panel)
    ends = [(one, one.end) for one in panel.lines]
    found = [(one, x, y) for one, end in ends if end is not None for x, y in [end] if y > 0 or not log]
    low, high = _reach(panel, log=log)
    scale = np.log10 if log else float
    pixels = (panel.domain[1] - panel.domain[0]) * (HEIGHT - TOP - BOTTOM)
    heights = [pixels * float((scale(y) - scale(low)) / (scale(high) - scale(low))) for _, _, y in found]
    return [
        {
            "text": f"{plain(middle(one.called, SHOWN))} {formatting.value(y, choice.group.form)}",
            "x": x, "y": float(scale(y)),
            "xref": f"x{panel.axis}", "yref": f"y{panel.axis}", "xanchor": "left", "yanchor": "middle", "xshift": 5,
            "yshift": shift, "showarrow": False, "font": {"size": 12, "color": series(one.run)[0]},
        }
        for (one, x, y), shift in zip(found, moved_apart(heights, LINE), strict=True)
    ]  # fmt: skip
