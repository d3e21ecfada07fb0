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
from llf_widgets.compare.labels import UNSHOWN, differing, value_of
from llf_widgets.monitor import formatting
from llf_widgets.monitor.result import result

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llf_widgets.monitor.watch import Watch

NONE = "–"  # noqa: RUF001 - a dash as wide as a digit
PACKAGES = ("torch", "transformers", "peft", "llf")


@dataclass(frozen=True)
class Line:
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
        """The row for the front end."""
        return {"label": self.label, "cells": list(self.cells), "best": list(self.best), "code": self.code}


@dataclass(frozen=True)
class Part:
    """Rows under a heading, with a note; without rows the note says that nothing differs."""

    title: str
    note: str
    lines: tuple[Line, ...] = ()

    def json(self) -> dict[str, object]:
        """The section for the front end."""
        return {"title": self.title, "note": self.note, "lines": [line.json() for line in self.lines]}


def parts(watches: Sequence[Watch]) -> list[Part]:
    """All sections of the table.

    Args:
        watches: the runs, already read.
    """
    return [_result(watches), _cost(watches), _config(watches), _data(watches), _environment(watches)]


def _result(watches: Sequence[Watch]) -> Part:
    names = {name: None for watch in watches for name in watch.series}
    told = key_metrics(names)
    if primary_metric(names) == "loss":
        told.append(KeyMetric("loss", "Loss", "number"))
    lines = []
    for one in (result(watches, what) for what in told):
        sign = {"more": -1, "less": 1}.get(BETTER_DIRECTION.get(one.what.name, ""), 0)
        if one.held_out or one.what.name == "loss":
            best = [one.best(watch) for watch in watches]
            lines.append(
                _marked(
                    replace(one, held_out=True).label,
                    tuple(NONE if found is None else f"{one.write(found[1])} at {found[0]:,}" for found in best),
                    [None if found is None else sign * found[1] for found in best],
                )
            )
        last = [one.last(watch) for watch in watches]
        lines.append(
            _marked(
                replace(one, held_out=False).label,
                tuple(NONE if value is None else one.write(value) for value in last),
                [None if value is None or not np.isfinite(value) else sign * value for value in last],
            )
        )
        smooth = [last_finite(watch.smoothed.get(one.what.name, np.empty(0))) for watch in watches]
        if watches[0].window:
            cells = tuple(NONE if value is None else one.write(value) for value in smooth)
            lines.append(
                _marked(
                    f"{one.training_label}, {label(watches[0].window)}",
                    cells,
                    [None if value is None else sign * value for value in smooth],
                )
            )
    return Part("Result", "best in bold", tuple(lines))


def _cost(watches: Sequence[Watch]) -> Part:
    speed = [median(watch.series, "tokens_per_second") for watch in watches]
    trained = [_event(watch, "model").get("trainable") for watch in watches]
    output = [folder_bytes(watch.folder.output) if watch.folder.output.is_dir() else None for watch in watches]
    lines = (
        _line("Time", [watch.facts.elapsed or None for watch in watches], formatting.duration),
        _line("Tokens per second, median", speed, formatting.count, most=True),
        _line("Peak memory", [highest(watch.series, "memory") for watch in watches], _size),
        _line(
            "Trained parameters", [float(one) if isinstance(one, int) else None for one in trained], formatting.count
        ),
        _line("Output", [None if one is None else float(one) for one in output], _size),
    )
    return Part("Cost", "", lines)


def _config(watches: Sequence[Watch]) -> Part:
    configs = [watch.config for watch in watches]
    keys = {key for config in configs for key in config} - UNSHOWN
    found = differing(configs)
    lines = [Line(key, tuple(value_of(config.get(key)) for config in configs), code=True) for key in found]
    told = [_told(watch) for watch in watches]
    if any(text != NONE for text in told):
        lines.append(Line("changed while running", tuple(told)))
    note = f"{len(found):,} of {len(keys):,} keys differ" if found else f"the same: {len(keys):,} keys"
    return Part("Config", note, tuple(lines))


def _told(watch: Watch) -> str:
    texts = {
        "learning_rate": lambda value, step: f"{formatting.rate(value)} from {step:,}",
        "max_steps": lambda value, _: f"ends at {value:,}",
    }
    said = [
        texts[name](value, change.step + 1)
        for change in read_changes(watch.folder)
        for name, value in change.changes.items()
        if name in texts
    ]
    return ", ".join(said) or NONE


def _data(watches: Sequence[Watch]) -> Part:
    facts = [
        {
            "examples": _count(_event(watch, "data").get("examples")),
            "held out": _count(_event(watch, "data").get("eval_examples", 0)),
            "fingerprint": str((watch.resolved.get("data") or {}).get("fingerprint") or NONE)[:12],
        }
        for watch in watches
    ]
    return _differing("Data", facts, "{examples} examples, {held out} held out, fingerprint {fingerprint}")


def _environment(watches: Sequence[Watch]) -> Part:
    facts = []
    for watch in watches:
        packages, device = watch.env.get("packages") or {}, watch.env.get("device") or {}
        found = {name: str(packages.get(name) or NONE) for name in PACKAGES[:-1]}
        found |= {
            "llf": str(watch.env.get("llf") or NONE),
            "device": str(device.get("name") or watch.resolved.get("device") or NONE),
        }
        found["precision"] = str(watch.resolved.get("autocast") or watch.resolved.get("dtype") or NONE)
        facts.append(found)
    return _differing("Environment", facts, "torch {torch}, transformers {transformers}, {device}, {precision}")


def _differing(title: str, facts: list[dict[str, str]], same: str) -> Part:
    found = [name for name in facts[0] if len({one[name] for one in facts}) > 1]
    if not found:
        return Part(title, f"the same: {same.format(**facts[0])}")
    return Part(title, "", tuple(Line(name, tuple(one[name] for one in facts)) for name in found))


def _line(label: str, values: Sequence[float | None], write: Callable[[float], str], *, most: bool = False) -> Line:
    shown = tuple(NONE if value is None else write(value) for value in values)
    return _marked(label, shown, [None if value is None else -value if most else value for value in values])


def _marked(label: str, cells: tuple[str, ...], values: Sequence[float | None]) -> Line:
    """A row with the smallest values marked as best.

    None is marked if fewer than two are known, or all are equal or displayed equally.
    """
    known = [value for value in values if value is not None]
    read = {cell for cell, value in zip(cells, values, strict=True) if value is not None}
    if len(set(known)) < 2 or len(read) < 2:  # noqa: PLR2004 - nothing to choose between
        return Line(label, cells)
    return Line(label, cells, tuple(place for place, value in enumerate(values) if value == min(known)))


def _event(watch: Watch, kind: str) -> dict[str, object]:
    return watch.index.last(kind) or {}


def _count(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else NONE


def _size(amount: float) -> str:
    return " ".join(formatting.size(amount))
