"""Comparison table: results, cost, and differences in config, data and environment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from llf_core.runs import folder_bytes
from llf_core.runs.change_journal import read_changes
from llf_core.runs.metric_catalog import BETTER_DIRECTION, KeyMetric, key_metrics, primary_metric
from llf_core.runs.smoothing import label
from llf_core.runs.summary_numbers import highest, last_finite, median
from llf_widgets.compare.labels import HIDDEN_KEYS, differing, value_of
from llf_widgets.monitor import formatting
from llf_widgets.monitor.ranking import ranked_metric

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llf_widgets.monitor.run_tracker import RunTracker

NONE = "–"  # noqa: RUF001 - a dash as wide as a digit
PACKAGES = ("torch", "transformers", "peft", "llf")


@dataclass(frozen=True)
class TableRow:
    """One row of the table.

    Attributes:
        label: what it shows.
        cells: one text per run.
        best: indices of the best runs.
        code: whether the label is a config key.
    """

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


def comparison_sections(trackers: Sequence[RunTracker]) -> list[TableSection]:
    """All sections of the table, results first, since they are the question that a comparison answers.

    Args:
        trackers: the runs, already read and smoothed over the same window.

    Raises:
        BrokenRunError: a run has no readable status.
        OSError: the output folder of a run is not accessible.
    """
    return [_result(trackers), _cost(trackers), _config(trackers), _data(trackers), _environment(trackers)]


def _result(trackers: Sequence[RunTracker]) -> TableSection:
    names = {name: None for tracker in trackers for name in tracker.series}
    metrics = key_metrics(names)
    if primary_metric(names) == "loss":
        metrics.append(KeyMetric("loss", "Loss", "number"))
    lines = []
    for one in (ranked_metric(trackers, metric) for metric in metrics):
        sign = {"more": -1, "less": 1}.get(BETTER_DIRECTION.get(one.metric.name, ""), 0)
        if one.held_out or one.metric.name == "loss":
            best = [one.best(tracker) for tracker in trackers]
            lines.append(
                _marked(
                    replace(one, held_out=True).label,
                    tuple(NONE if found is None else f"{one.format(found[1])} at {found[0]:,}" for found in best),
                    [None if found is None else sign * found[1] for found in best],
                )
            )
        last = [one.last(tracker) for tracker in trackers]
        lines.append(
            _marked(
                replace(one, held_out=False).label,
                tuple(NONE if value is None else one.format(value) for value in last),
                [None if value is None or not np.isfinite(value) else sign * value for value in last],
            )
        )
        smooth = [last_finite(tracker.smoothed.get(one.metric.name, np.empty(0))) for tracker in trackers]
        if trackers[0].window:
            cells = tuple(NONE if value is None else one.format(value) for value in smooth)
            lines.append(
                _marked(
                    f"{one.training_label}, {label(trackers[0].window)}",
                    cells,
                    [None if value is None else sign * value for value in smooth],
                )
            )
    return TableSection("Result", "best in bold", tuple(lines))


def _cost(trackers: Sequence[RunTracker]) -> TableSection:
    speed = [median(tracker.series, "tokens_per_second") for tracker in trackers]
    trained = [_event(tracker, "model").get("trainable") for tracker in trackers]
    output = [folder_bytes(tracker.folder.output) if tracker.folder.output.is_dir() else None for tracker in trackers]
    lines = (
        _row("Time", [tracker.snapshot.elapsed or None for tracker in trackers], formatting.duration),
        _row("Tokens per second, median", speed, formatting.count, highest_best=True),
        _row("Peak memory", [highest(tracker.series, "memory") for tracker in trackers], _size),
        _row("Trained parameters", [float(one) if isinstance(one, int) else None for one in trained], formatting.count),
        _row("Output", [None if one is None else float(one) for one in output], _size),
    )
    return TableSection("Cost", "", lines)


def _config(trackers: Sequence[RunTracker]) -> TableSection:
    configs = [tracker.config for tracker in trackers]
    keys = {key for config in configs for key in config} - HIDDEN_KEYS
    found = differing(configs)
    lines = [TableRow(key, tuple(value_of(config.get(key)) for config in configs), code=True) for key in found]
    changes = [_live_changes(tracker) for tracker in trackers]
    if any(text != NONE for text in changes):
        lines.append(TableRow("changed while running", tuple(changes)))
    note = f"{len(found):,} of {len(keys):,} keys differ" if found else f"the same: {len(keys):,} keys"
    return TableSection("Config", note, tuple(lines))


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


def _data(trackers: Sequence[RunTracker]) -> TableSection:
    facts = [
        {
            "examples": _count(_event(tracker, "data").get("examples")),
            "held out": _count(_event(tracker, "data").get("eval_examples", 0)),
            "fingerprint": str((tracker.resolved.get("data") or {}).get("fingerprint") or NONE)[:12],
        }
        for tracker in trackers
    ]
    return _facts_section("Data", facts, "{examples} examples, {held out} held out, fingerprint {fingerprint}")


def _environment(trackers: Sequence[RunTracker]) -> TableSection:
    facts = []
    for tracker in trackers:
        packages, device = tracker.env.get("packages") or {}, tracker.env.get("device") or {}
        found = {name: str(packages.get(name) or NONE) for name in PACKAGES[:-1]}
        found |= {
            "llf": str(tracker.env.get("llf") or NONE),
            "device": str(device.get("name") or tracker.resolved.get("device") or NONE),
        }
        found["precision"] = str(tracker.resolved.get("autocast") or tracker.resolved.get("dtype") or NONE)
        facts.append(found)
    return _facts_section("Environment", facts, "torch {torch}, transformers {transformers}, {device}, {precision}")


def _facts_section(title: str, facts: list[dict[str, str]], same: str) -> TableSection:
    found = [name for name in facts[0] if len({one[name] for one in facts}) > 1]
    if not found:
        return TableSection(title, f"the same: {same.format(**facts[0])}")
    return TableSection(title, "", tuple(TableRow(name, tuple(one[name] for one in facts)) for name in found))


def _row(
    label: str, values: Sequence[float | None], write: Callable[[float], str], *, highest_best: bool = False
) -> TableRow:
    shown = tuple(NONE if value is None else write(value) for value in values)
    return _marked(label, shown, [None if value is None else -value if highest_best else value for value in values])


def _marked(label: str, cells: tuple[str, ...], values: Sequence[float | None]) -> TableRow:
    """A row with the smallest values marked as best.

    None is marked if fewer than two are known, or all are equal or displayed equally.
    """
    known = [value for value in values if value is not None]
    read = {cell for cell, value in zip(cells, values, strict=True) if value is not None}
    if len(set(known)) < 2 or len(read) < 2:  # noqa: PLR2004 - nothing to choose between
        return TableRow(label, cells)
    return TableRow(label, cells, tuple(place for place, value in enumerate(values) if value == min(known)))


def _event(tracker: RunTracker, kind: str) -> dict[str, object]:
    return tracker.index.last(kind) or {}


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else NONE


def _size(amount: float) -> str:
    return " ".join(formatting.size(amount))
