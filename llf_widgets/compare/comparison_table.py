"""Comparison table: results with those of evaluations, cost, and differences in config, data and environment."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.config.number_format import with_unit
from llf_core.evaluation.judge.win_rate import stored_win_rates
from llf_core.metrics.base_metric import BITS_PER_BYTE, LOSS, PERPLEXITY, TOKEN_ACCURACY
from llf_core.runs import folder_bytes
from llf_core.runs.charts import (
    BY_SET,
    EVAL_PREFIX,
    KeyMetric,
    declared_directions,
    key_metrics,
    logged_charts,
    metric_named,
    primary_metric,
)
from llf_core.runs.control import read_changes
from llf_core.runs.curves import highest, label, last_finite, median
from llf_core.runs.evaluations import MetricValue, results_of
from llf_core.runs.formatting import amount_text
from llf_widgets.compare.labels import HIDDEN_KEYS, differing, value_at
from llf_widgets.compare.plotly_figure import BAND_OPACITY, X_AXES, figure_json
from llf_widgets.monitor import formatting
from llf_widgets.monitor.ranking import RankedMetric, ranked_metric
from llf_widgets.plotting.image import GRAY, draw_label, format_percent, new_figure, plain_axes, to_png
from llf_widgets.plotting.plotly_layout import LineEnd, to_hex

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from llf_core.runs import RunFolder
    from llf_core.runs.evaluations import EvaluationResult
    from llf_widgets.compare.labels import RunGroup
    from llf_widgets.monitor.run_tracker import RunTracker

    Read = Callable[[RunTracker], float | None]

NONE = "–"  # noqa: RUF001 - a dash as wide as a digit
PACKAGES = ("torch", "transformers", "peft", "llf")


@dataclass(frozen=True)
class TableRow:
    """One row of the table; `code` says whether the label is a config key."""

    label: str
    cells: tuple[str, ...]
    best: tuple[int, ...] = ()
    code: bool = False

    def json(self) -> dict[str, object]:
        """The row as plain JSON for the front end."""
        return {"label": self.label, "cells": list(self.cells), "best": list(self.best), "code": self.code}


@dataclass(frozen=True)
class TableSection:
    """Rows under a heading, with a note; without rows the note says that nothing differs."""

    title: str
    note: str
    rows: tuple[TableRow, ...] = ()

    def json(self) -> dict[str, object]:
        """The section as plain JSON for the front end."""
        return {"title": self.title, "note": self.note, "rows": [row.json() for row in self.rows]}


def comparison_sections(groups: Sequence[RunGroup]) -> list[TableSection]:
    """All sections of the table, from runs that were read and smoothed over the same window.

    A cell of several runs has the mean of their results, and below it the lowest and the highest if they read
    differently; of their settings it lists each value.
    """
    return [_result(groups), *_evaluations(groups), _cost(groups), _config(groups), _data(groups), _environment(groups)]


def _result(groups: Sequence[RunGroup]) -> TableSection:
    trackers = [tracker for group in groups for tracker in group.trackers]
    names = {name: None for tracker in trackers for name in tracker.series}
    metrics = key_metrics(names)
    if primary_metric(names) == "loss":
        metrics.append(KeyMetric("loss", "Loss", "number"))
    metrics += _evaluated(trackers, {one.name for one in metrics})
    lines = []
    for one in (ranked_metric(trackers, metric) for metric in metrics):
        direction = one.direction
        if one.held_out or one.metric.name == "loss":
            lines.append(
                _row(
                    replace(one, held_out=True).label, groups, _best_value(one), one.format, direction, _best_step(one)
                )
            )
        if one.metric.name not in names and one.metric.name != "loss":
            continue  # evaluations alone log it
        lines.append(_row(replace(one, held_out=False).label, groups, one.last, one.format, direction))
        if trackers[0].window:
            title = f"{one.training_label}, {label(trackers[0].window)}"
            lines.append(_row(title, groups, _last_smoothed(one.metric.name), one.format, direction))
    return TableSection("Result", "best in bold", tuple(lines))


def _evaluated(trackers: Sequence[RunTracker], listed: set[str]) -> list[KeyMetric]:
    """Further metrics of evaluations of which any run declares a direction, over all data sets."""
    declared = dict.fromkeys(name for tracker in trackers for name in declared_directions(tracker.resolved))
    logged = {name for tracker in trackers for name in tracker.series}
    found = [name for name in declared if name not in listed | {"loss"} and EVAL_PREFIX + name in logged]
    return [metric_named(name) for name in found if not _is_of_a_set(name)]


def _is_of_a_set(name: str) -> bool:
    return logged_charts([EVAL_PREFIX + name])[0].chart.title.endswith(BY_SET)


def _evaluations(groups: Sequence[RunGroup]) -> list[TableSection]:
    found = _evaluated_metrics(tracker.folder for group in groups for tracker in group.trackers)
    lines = tuple(
        _row(
            metric.label,
            groups,
            lambda tracker, metric=metric: metric.values.get(tracker.snapshot.id),  # type: ignore[misc]
            lambda value, metric=metric: amount_text(value, metric.unit),  # type: ignore[misc]
            metric.direction,
        )
        for metric in found
    )
    return [TableSection("Evaluations", "the newest of each run, best in bold", lines)] if lines else []


def _best_value(metric: RankedMetric) -> Read:
    def read(tracker: RunTracker) -> float | None:
        found = metric.best(tracker)
        return None if found is None else found[1]

    return read


def _best_step(metric: RankedMetric) -> Callable[[RunTracker], str]:
    def read(tracker: RunTracker) -> str:
        found = metric.best(tracker)
        return "" if found is None else f" at {found[0]:,}"

    return read


def _last_smoothed(name: str) -> Read:
    return lambda tracker: last_finite(tracker.smoothed.get(name, np.empty(0)))


def _cost(groups: Sequence[RunGroup]) -> TableSection:
    lines = (
        _row("Time", groups, lambda tracker: tracker.snapshot.elapsed or None, formatting.duration),
        _row("Tokens per second, median", groups, _speed, formatting.count, "more"),
        _row("Peak memory", groups, lambda tracker: highest(tracker.series, "memory"), _size),
        _row("Trained parameters", groups, _trained_parameters, formatting.count),
        _row("Output", groups, _output_bytes, _size),
    )
    return TableSection("Cost", "", lines)


def _speed(tracker: RunTracker) -> float | None:
    return median(tracker.series, "tokens_per_second")


def _trained_parameters(tracker: RunTracker) -> float | None:
    found = _event(tracker, "model").get("trainable")
    return float(found) if isinstance(found, int) else None


def _output_bytes(tracker: RunTracker) -> float | None:
    return float(folder_bytes(tracker.folder.output)) if tracker.folder.output.is_dir() else None


def _config(groups: Sequence[RunGroup]) -> TableSection:
    configs = [tracker.config for group in groups for tracker in group.trackers]
    keys = {key for config in configs for key in config} - HIDDEN_KEYS
    rows = [
        TableRow(key, tuple(_every(value_at(one.config, key) for one in group.trackers) for group in groups), code=True)
        for key in differing(configs)
    ]
    lines = [row for row in rows if len(groups) == 1 or len(set(row.cells)) > 1]  # each group may have the same seeds
    count = len(lines)
    changes = [_every(map(_live_changes, group.trackers)) for group in groups]
    if any(text != NONE for text in changes):
        lines.append(TableRow("changed while running", tuple(changes)))
    note = f"{count:,} of {len(keys):,} keys differ" if count else f"the same: {len(keys):,} keys"
    return TableSection("Config", note, tuple(lines))


def _every(texts: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(texts))


def _live_changes(tracker: RunTracker) -> str:
    texts: dict[str, Callable[[float, int], str]] = {
        "learning_rate": lambda value, step: f"{formatting.rate(value)} from {step:,}",
        "max_steps": lambda value, _: f"ends at {value:,}",
    }
    texts_of_changes = [
        texts[name](value, change.step + 1)
        for change in read_changes(tracker.folder)
        for name, value in change.changes.items()
        if name in texts
    ]
    return ", ".join(texts_of_changes) or NONE


def _data(groups: Sequence[RunGroup]) -> TableSection:
    return _facts_section(
        "Data", groups, _data_facts, "{examples} examples, {held out} held out, fingerprint {fingerprint}"
    )


def _data_facts(tracker: RunTracker) -> dict[str, str]:
    return {
        "examples": _count(_event(tracker, "data").get("examples")),
        "held out": _count(_event(tracker, "data").get("eval_examples", 0)),
        "fingerprint": str(_part(tracker.resolved, "data").get("fingerprint") or NONE)[:12],
    }


def _environment(groups: Sequence[RunGroup]) -> TableSection:
    return _facts_section(
        "Environment", groups, _environment_facts, "torch {torch}, transformers {transformers}, {device}, {precision}"
    )


def _environment_facts(tracker: RunTracker) -> dict[str, str]:
    packages, device = _part(tracker.env, "packages"), _part(tracker.env, "device")
    found = {name: str(packages.get(name) or NONE) for name in PACKAGES[:-1]}
    return found | {
        "llf": str(tracker.env.get("llf") or NONE),
        "device": str(device.get("name") or tracker.resolved.get("device") or NONE),
        "precision": str(tracker.resolved.get("autocast") or tracker.resolved.get("dtype") or NONE),
    }


def _part(facts: dict[str, object], name: str) -> dict[str, object]:
    """An object in a file of a run, which may come from elsewhere; empty if it is of another type."""
    found = facts.get(name)
    return found if isinstance(found, dict) else {}


def _facts_section(
    title: str, groups: Sequence[RunGroup], read: Callable[[RunTracker], dict[str, str]], same: str
) -> TableSection:
    facts = [[read(tracker) for tracker in group.trackers] for group in groups]
    every = [one for several in facts for one in several]
    found = [name for name in every[0] if len({one[name] for one in every}) > 1]
    if not found:
        return TableSection(title, f"the same: {same.format(**every[0])}")
    rows = (TableRow(name, tuple(_every(one[name] for one in several) for several in facts)) for name in found)
    return TableSection(title, "", tuple(rows))


def _row(  # noqa: PLR0913, PLR0917 - a row, and how its cells are made
    title: str,
    groups: Sequence[RunGroup],
    read: Read,
    write: Callable[[float], str],
    direction: str = "less",
    suffix: Callable[[RunTracker], str] = lambda _: "",
) -> TableRow:
    """A row of numbers with the best groups marked, unless ranges overlap.

    Args:
        read: the number of a run, or None.
        direction: `less` or `more` is better; anything else marks none.
    """
    sign = {"more": -1, "less": 1}.get(direction, 0)
    cells, values = [], []
    for group in groups:
        numbers = [read(tracker) for tracker in group.trackers]
        known = [number for number in numbers if number is not None]
        values.append(sign * np.array(known) if known and np.isfinite(known).all() else None)
        cells.append(_cell(known, len(numbers), write) + (suffix(group.trackers[0]) if len(numbers) == 1 else ""))
    return _marked(title, tuple(cells), values)


def _cell(known: Sequence[float], runs: int, write: Callable[[float], str]) -> str:
    """The mean of a group's numbers, and in a second line the lowest and the highest, where they read differently."""
    if not known:
        return NONE
    low, high = write(float(np.min(known))), write(float(np.max(known)))
    text = write(float(np.mean(known))) + ("" if low == high else f"\n{low} to {high}")
    return text if len(known) == runs else f"{text}\n{len(known)} of {runs} runs"


def _marked(label: str, cells: tuple[str, ...], values: Sequence[NDArray[np.float64] | None]) -> TableRow:
    """A row with the groups of the smallest mean marked as best, from the values `[runs]` of each.

    None is marked if fewer than two are known, all means are equal or displayed equally, or another group has a value
    within the range of the best.
    """
    known = {place: value for place, value in enumerate(values) if value is not None}
    means = {place: float(value.mean()) for place, value in known.items()}
    if len(set(means.values())) < 2 or len({cells[place] for place in known}) < 2:  # noqa: PLR2004 - nothing to choose
        return TableRow(label, cells)
    best = tuple(place for place, mean in means.items() if mean == min(means.values()))
    highest_of_best = max(float(known[place].max()) for place in best)
    apart = all(value.min() > highest_of_best for place, value in known.items() if place not in best)
    return TableRow(label, cells, best if apart else ())


def _event(tracker: RunTracker, kind: str) -> dict[str, object]:
    return tracker.index.last(kind) or {}


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else NONE


def _size(amount: float) -> str:
    return " ".join(formatting.size(amount))


OF_LOSSES = frozenset(one.name for one in (LOSS, PERPLEXITY, BITS_PER_BYTE, TOKEN_ACCURACY))


@dataclass(frozen=True)
class EvaluatedMetric:
    """A metric on the same examples, of several runs; `direction` says whether `more` or `less` is better."""

    label: str
    unit: str
    direction: str
    values: Mapping[str, float]


def _evaluated_metrics(folders: Iterable[RunFolder]) -> list[EvaluatedMetric]:
    """Collect the newest value of each metric that `llf.Evaluate` and `llf eval` have measured of the weights of runs.

    Values stand in one row if they are of the same examples, and of generated answers of the same length. Win rates
    have a row for each judge and model that the runs were compared with. Results of base models are left out.
    """
    found: dict[tuple[object, ...], dict[str, tuple[MetricValue, str, float]]] = {}
    for folder in folders:
        for result in results_of(folder):
            if result.problem or result.target.step is None or result.target.run != folder.id:
                continue
            for value in (*result.metrics, *_win_rates(result)):
                row = found.setdefault(_key(result, value), {})
                label = _data_name(result) + _length(result, value)
                row.setdefault(folder.id, (value, label, value.value))  # the newest comes first
    order = list(dict.fromkeys(key[0] for key in found))
    return [
        _row_of(list(found[key].values()), {run: entry[2] for run, entry in found[key].items()})
        for key in sorted(found, key=lambda key: order.index(key[0]))
    ]


def _win_rates(result: EvaluationResult) -> list[MetricValue]:
    try:
        found = stored_win_rates(result)
    except OSError:  # also what is not a regular file
        return []
    return [
        MetricValue(
            f"win rate {one.judge} {one.weights}",
            f"Win rate against {one.base or 'another model'} by {one.rate.judge}",
            one.rate.rate,
            one.rate.low,
            one.rate.high,
            one.rate.wins + one.rate.ties + one.rate.losses,
            "%",
        )
        for one in found
        if math.isfinite(one.rate.rate)
    ]


def _key(result: EvaluationResult, value: MetricValue) -> tuple[object, ...]:
    """Equal where the values of two runs can be compared."""
    of_losses = value.name in OF_LOSSES
    settings = result.settings
    how = (None, None) if of_losses else (settings.get("max_new_tokens"), settings.get("n_shot"))
    return result.data.fingerprint, value.name, *how


def _row_of(entries: list[tuple[MetricValue, str, float]], values: Mapping[str, float]) -> EvaluatedMetric:
    metric, data, _ = entries[0]
    return EvaluatedMetric(
        f"{metric.label}, {data}", metric.unit, "more" if metric.higher_is_better else "less", dict(values)
    )


def _data_name(result: EvaluationResult) -> str:
    return str(result.settings.get("task") or ", ".join(PurePath(name).name for name in result.data.names))


def _length(result: EvaluationResult, value: MetricValue) -> str:
    """The longest answer that was scored, which distinguishes rows of the same metric; empty for losses and tasks."""
    most = None if value.name in OF_LOSSES else result.settings.get("max_new_tokens")
    return f" ({with_unit(most, 'token')})" if isinstance(most, int) else ""


SIZE, DPI = (7.4, 5.4), 120
POINTS = 0.75  # of a pixel


def saved_image(groups: Sequence[RunGroup], options: dict[str, Any]) -> str:
    """Draw the figure of `figure_json(groups, **options)` as a PNG data URL."""
    drawn = figure_json(groups, **options)
    shape = drawn["layout"]
    charts = shape["meta"]["charts"]
    figure = new_figure(*SIZE, DPI)
    panels = figure.subplots(len(charts), 1, squeeze=False)[:, 0]
    panel_of = {chart["x"]: panel for chart, panel in zip(charts, panels, strict=True)}
    scale_of = {chart["x"]: shape[chart["yaxis"]] for chart in charts}
    for trace in drawn["data"]:
        line = trace["line"]
        if "fill" in trace:
            _fill(panel_of[trace["xaxis"]], trace)
            continue
        panel_of[trace["xaxis"]].plot(
            trace["x"], trace["y"], color=to_hex(line["color"]), alpha=trace.get("opacity", 1.0), markersize=3,
            linestyle=_dash(line.get("dash", "solid")), linewidth=line["width"],
            marker="o" if "markers" in trace["mode"] else None,
        )  # fmt: skip
    titles = [text["text"] for text in shape["annotations"] if text["xref"] == "paper"]
    for chart, panel, title in zip(charts, panels, titles, strict=True):
        plain_axes(panel, _text(title))
        _scale(panel, scale_of[chart["x"]])
    for text in shape["annotations"]:
        if text["xref"] != "paper":
            height = 10 ** text["y"] if scale_of[text["xref"]]["type"] == "log" else text["y"]
            end = LineEnd(text["x"], height, _text(text["text"]), text["font"]["color"])
            draw_label(panel_of[text["xref"]], end, (4, POINTS * text["yshift"]), 8)
    panels[-1].set_xlabel(X_AXES[options["x_axis"]], fontsize=8, color=GRAY)
    figure.subplots_adjust(left=0.08, right=0.76, top=0.94, bottom=0.09, hspace=0.35)
    return f"data:image/png;base64,{base64.b64encode(to_png(figure)).decode('ascii')}"


def _fill(panel: Axes, trace: dict[str, Any]) -> None:
    for piece in np.split(np.arange(len(trace["x"])), np.flatnonzero(np.isnan(trace["x"]))):
        points = piece[np.isfinite(trace["x"][piece])]
        if points.size:
            color = to_hex(trace["line"]["color"])
            panel.fill(trace["x"][points], trace["y"][points], color=color, alpha=BAND_OPACITY, linewidth=0)


def _dash(dash: str) -> str | tuple[int, tuple[int, ...]]:
    """Plotly's dash, such as `6px,3px`, as matplotlib's."""
    return dash if dash == "solid" else (0, tuple(int(part.removesuffix("px")) for part in dash.split(",")))


def _scale(axes: Axes, scale: dict[str, Any]) -> None:
    axes.set_yscale(scale["type"])
    if "tickvals" in scale:
        from matplotlib.ticker import NullLocator

        axes.set_yticks(np.asarray(scale["tickvals"]), scale["ticktext"])
        axes.yaxis.set_minor_locator(NullLocator())
    elif scale["tickformat"].endswith("%"):
        format_percent(axes)
    if "range" in scale:
        axes.set_ylim(*scale["range"])


def _text(markup: str) -> str:
    plain = markup.replace("<b>", "").replace("</b>", "")
    return plain.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
