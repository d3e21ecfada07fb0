"""The charts of a run as Plotly JSON: data of the traces in one figure.

What charts there are is declared in `llf_core.runs.metric_catalog`: to add a chart, add a group there.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from llf_core.runs.metric_catalog import EVAL_PREFIX
from llf_core.runs.smoothing import label
from llf_widgets.monitor import formatting
from llf_widgets.monitor.curves import NOTHING
from llf_widgets.monitor.layout import (
    CHART,
    INK,
    LEFT,
    PANELS,
    QUIET,
    Places,
    axis_number,
    held_out_tone,
    layout,
    levels,
    plain,
    tones,
    traces,
)

if TYPE_CHECKING:
    from llf_core.runs.metric_catalog import LoggedGroup
    from llf_widgets.monitor.curves import Curves, Line

HELP_WIDTH = 56  # letters of 11 pixels that fit above a group's chart in the narrowest figure
LINE, HELP_LINE = 13, 14  # pixels

WRITERS = {
    "learning_rate": formatting.rate, "grad_norm": formatting.number, "tokens_per_second": formatting.count,
    "memory": lambda value: " ".join(formatting.size(value)),
}  # fmt: skip
"""Formats of the last value in the small charts."""
HEIGHTS = (0.9, 0.8, 0.7)
"""Heights of neighboring markers, so that their labels do not overlap."""


def figure_json(curves: Curves, total: int, *, narrow: bool = False) -> dict[str, object]:
    """Build the complete figure with numpy arrays, for `figures.packed`.

    Args:
        curves: the data.
        total: planned steps, the right end of every step axis; 0 if unknown.
        narrow: layout for less than 700 pixels, see `Places`.
    """
    places = Places(len(curves.groups), narrow=narrow)
    shape = layout(curves, total, places) | {"annotations": annotations(curves, places), "shapes": levels(curves)}
    return {
        "data": [trace | content for trace, content in zip(traces(curves), contents(curves), strict=True)],
        "layout": shape,
    }


def contents(curves: Curves) -> list[dict[str, object]]:
    """The changing data: x, y and texts of every trace, in the figure's order."""
    return [
        _seen(curves.line(curves.lead)),
        _points(curves.smooth.get(curves.lead, NOTHING)),
        _points(curves.line(EVAL_PREFIX + curves.lead)),
        *(_seen(curves.line(name)) for name in PANELS),
        {"x": curves.kept, "y": np.full(curves.kept.size, 0.03)},
        {"x": curves.best, "y": np.full(curves.best.size, 0.03)},
        _marks(curves.marks),
        {"x": curves.broken, "y": np.full(curves.broken.size, 0.97), "text": _broken_text(curves)},
        *_end_labels(curves),
        *(_points(line) for one in curves.groups for line in _lines_of(one, curves)),
        _points(curves.planned),
    ]


def annotations(curves: Curves, places: Places | None = None) -> list[dict[str, object]]:
    """Chart titles with descriptions, last values, and labels at the ends of lines.

    Args:
        curves: the data.
        places: positions of the charts.
    """
    places = places or Places(len(curves.groups))
    main = curves.main.group.title
    smooth = f"thick: {label(curves.window)}, thin: every logged step" if curves.window else "solid: every logged step"
    note = smooth if places.narrow else f"{smooth}, dashed: evaluation, ▲ checkpoint, ★ best"
    notes = [
        _heading(f"<b>{main}</b>", 0, 1, 6),
        _note(note, 0, 1, 6) | {"xshift": max(0, 8 * len(main) - 42)},
    ]
    for place, (name, (title, _, _)) in enumerate(PANELS.items()):
        (left, right), (_, top) = places.small(place)
        value = WRITERS[name](curves.last[name]) if name in curves.last else ""
        notes.append(_heading(f"<b>{title}</b>", left, top, 8))
        notes.append(_heading(value, right, top, 8) | {"xanchor": "right", "xshift": 0})
    for number, one in enumerate(curves.groups):
        notes += _group_notes(number, one, curves, places)
    return notes


def _group_notes(number: int, one: LoggedGroup, curves: Curves, places: Places) -> list[dict[str, object]]:
    """Heading, description, reference level and line labels of a group."""
    group, axis = one.group, axis_number(number)
    (left, _), (_, top) = places.group(number)
    held_out = any(curves.held_out(name) for name in one.lines)
    said = f"{group.help} Dashed: evaluation set." if held_out and len(one.lines) > 1 else group.help
    lines = textwrap.wrap(said, HELP_WIDTH)
    notes = [
        _heading(f"<b>{plain(group.title)}</b>", left, top, 10 + HELP_LINE * len(lines)),
        _note("<br>".join(plain(line) for line in lines), left, top, 8) | {"xshift": -LEFT, "align": "left"},
    ]
    if group.level_label:
        notes.append(
            _note(group.level_label, 0, group.level or 0.0, 0)
            | {
                "xref": f"x{axis} domain",
                "yref": f"y{axis}",
                "xshift": 3,
                "yanchor": "top",
                "font": {"color": QUIET, "size": 10},
            }
        )
    return notes + _line_labels(one, axis, curves)


def _line_labels(one: LoggedGroup, axis: int, curves: Curves) -> list[dict[str, object]]:
    """Labels at the ends of a group's lines, moved apart if they overlap."""
    ends: list[tuple[str, str, float, float]] = []  # text, colour, x, y
    for place, (name, called) in enumerate(one.lines.items()):
        color, _ = tones(place)
        alone = len(one.lines) == 1
        told = [(name, called, color)]
        if alone and curves.held_out(name):
            told.append((EVAL_PREFIX + name, "held out", held_out_tone(one, color)))
        for logged, text, tone in told:
            x, y = _finite(curves.line(logged))
            if x.size:
                ends.append(
                    (
                        f"{text} {formatting.value(curves.last[logged], one.group.form)}",
                        tone,
                        float(x[-1]),
                        float(y[-1]),
                    )
                )
    low, high = _reach(one, curves)
    shifts = moved_apart([CHART * (y - low) / (high - low) for *_, y in ends], LINE)
    return [
        {
            "text": plain(text), "x": x, "y": y, "xref": f"x{axis}", "yref": f"y{axis}",
            "xanchor": "left", "yanchor": "middle", "xshift": 5, "yshift": shift, "showarrow": False,
            "font": {"color": color, "size": 11},
        }
        for (text, color, x, y), shift in zip(ends, shifts, strict=True)
    ]  # fmt: skip


def _reach(one: LoggedGroup, curves: Curves) -> tuple[float, float]:
    """Approximate range of a group's axis."""
    group = one.group
    if group.top is not None:
        return 0.0, 1.03 * group.top
    every = [_finite(line)[1] for line in _lines_of(one, curves)]
    known = np.concatenate([*every, [] if group.level is None else [group.level]])
    if known.size == 0:
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    return low, max(high, low + 1e-12)


def moved_apart(heights: list[float], least: float) -> list[float]:
    """Minimal shifts of labels so that neighbors are at least `least` apart.

    Args:
        heights: `[n]`, pixels.
        least: minimum distance in pixels.
    """
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    # Heights that touch form a heap, which stands around the mean of what its members want.
    heaps: list[tuple[list[int], float]] = []
    for place in order:
        heap, start = [place], heights[place]
        while heaps and heaps[-1][1] + least * len(heaps[-1][0]) > start:
            heap = heaps.pop()[0] + heap
            start = sum(heights[one] - least * number for number, one in enumerate(heap)) / len(heap)
        heaps.append((heap, start))
    moved = [0.0] * len(heights)
    for heap, start in heaps:
        for number, place in enumerate(heap):
            moved[place] = round(start + least * number - heights[place], 1)
    return moved


def _lines_of(one: LoggedGroup, curves: Curves) -> list[Line]:
    """Lines of a group's traces, in order."""
    found = []
    for name in one.lines:
        found += [curves.line(name), curves.smooth.get(name, NOTHING)]
        if curves.held_out(name):
            found.append(curves.line(EVAL_PREFIX + name))
    return found


def _heading(text: str, x: float, y: float, up: float) -> dict[str, object]:
    return _note(text, x, y, up) | {"xshift": -LEFT, "font": {"color": INK, "size": 12}}


def _note(text: str, x: float, y: float, up: float) -> dict[str, object]:
    """Secondary text above a position of the figure."""
    return {
        "text": text, "x": x, "y": y, "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom",
        "yshift": up, "showarrow": False, "font": {"color": QUIET, "size": 11},
    }  # fmt: skip


def _seen(line: Line) -> dict[str, object]:
    """The points of a line; a single point is drawn as a dot."""
    return _points(line) | {"mode": "markers" if line[0].size == 1 else "lines"}


def _points(line: Line) -> dict[str, object]:
    x, y = line
    return {"x": x, "y": y}


def _last_only(size: int, text: str) -> list[str]:
    return [""] * (size - 1) + [text] if size else []


def _broken_text(curves: Curves) -> list[str]:
    what = "losses" if curves.lead == "loss" else "values"
    return _last_only(curves.broken.size, f"not a finite number: {curves.broken_count:,} of the logged {what}")


def _marks(marks: list[tuple[int, str]]) -> dict[str, object]:
    x: list[float | None] = []
    y: list[float | None] = []
    text: list[str] = []
    for number, (step, words_of_it) in enumerate(marks):
        x += [step, step, None]
        y += [0, HEIGHTS[number % len(HEIGHTS)], None]
        text += ["", f" {words_of_it}", ""]
    return {"x": x, "y": y, "text": text}


def _end_labels(curves: Curves) -> list[dict[str, object]]:
    """Name and last value at the end of each line of the large chart; of two close labels the higher moves up."""
    told = ((curves.lead, curves.main.lines[curves.lead]), (EVAL_PREFIX + curves.lead, "evaluation"))
    drawn = [_finite(curves.line(name)) for name, _ in told]
    every = np.concatenate([_finite(curves.line(curves.lead))[1], *(y for _, y in drawn)])
    positions = ["middle right", "middle right"]
    if all(y.size for _, y in drawn):
        (_, first), (_, second) = drawn
        if abs(first[-1] - second[-1]) < 0.12 * max(float(np.ptp(every)), 1e-12):
            positions = ["top right", "bottom right"] if first[-1] >= second[-1] else ["bottom right", "top right"]
    return [
        {
            "x": x[-1:],
            "y": y[-1:],
            "text": [f" {word} {formatting.value(curves.last[name], curves.main.group.form)}" for _ in y[-1:]],
            "textposition": position,
        }
        for (x, y), (name, word), position in zip(drawn, told, positions, strict=True)
    ]


def _finite(line: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    x, y = line
    good = np.isfinite(y)
    return x[good], y[good]
