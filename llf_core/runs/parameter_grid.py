"""The parameter map as a table of layers and modules, for forms, monitors and the sidebar."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llf_core.runs.jsonl import is_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

STATES = ("trained", "adapter", "frozen", "quantized", "not reached")
"""States of `llf_core.training.parameter_map`, in the order of the legend."""
LEGEND = {
    "trained": "its own weights are trained",
    "adapter": "an adapter beside its weights is trained, and the weights are frozen",
    "frozen": "its weights stay as they are",
    "quantized": "its weights are quantized and stay as they are",
    "not reached": "a matrix of a layer that has no adapter",
    "mixed": "parts of it are in different states",
}
MAX_MODULES, MAX_LAYERS, MAX_CELLS, MAX_NAME = 2_000, 2_000, 100_000, 200
"""Limits of an event's map, chosen by hand: a run's files may come from anybody."""
FEW_RANGES = 4
NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")


@dataclass
class _Module:
    states: dict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    parameters: int = 0
    trained: int = 0


def parameter_grid(rows: object, parameters: object, trained: object) -> dict[str, Any] | None:
    """Arrange the parameter map as tables, so that a view only has to draw their texts.

    Equal layers share a row. Experts and other parts that differ only by their number share a column.

    Args:
        rows: `map` of the event `model`, or `rows` of `llf parameters --json`.

    Returns:
        `share`, a sentence; `stacks`, a table for each list of layers with its `name`, its `columns` (`module` and
        `note`, a sentence about its parameters) and `rows` (`layers`, `short` and `cells`, each the text of a state or
        None where the layers have no such module); `outside`, the modules outside the layers (`module`, `note`,
        `state`); `legend`, pairs of a state and its meaning. None if the map is missing, as in runs of earlier
        versions, damaged or too large (`MAX_MODULES`, `MAX_LAYERS`, `MAX_CELLS` layers of all modules together).
    """
    if not isinstance(rows, list) or not rows or len(rows) > MAX_MODULES:
        return None
    if not is_count(parameters) or not is_count(trained):
        return None
    stacks: dict[str, dict[str, _Module]] = {}
    cells = 0
    for row in rows:
        added = _add(row, stacks)
        cells += added or 0
        if added is None or cells > MAX_CELLS:
            return None
    outside = stacks.pop("", {})
    texts = {
        state
        for modules in (*stacks.values(), outside)
        for module in modules.values()
        for at in module.states.values()
        for state in _words(at)
    }
    return {
        "share": share_sentence(int(str(trained)), int(str(parameters))),
        "stacks": [_table(name, modules) for name, modules in stacks.items()],
        "outside": [
            {"module": name, "note": _note(one), "state": _text(set().union(*one.states.values()))}
            for name, one in outside.items()
        ],
        "legend": [[state, meaning] for state, meaning in LEGEND.items() if state in texts],
    }


def share_sentence(trained: int, parameters: int) -> str:
    """The sentence `25 of 1,000 parameters are trained (2.5 %).` for all views."""
    if not parameters:
        return "The model has no parameters."
    return f"{trained:,} of {parameters:,} parameters are trained ({share_text(trained, parameters)})."


def share_text(part: int, whole: int) -> str:
    """A share in percent with three digits, such as `2.5 %`; `above 99.9 %` instead of a rounded 100 %."""
    text = f"{100 * part / whole:.3g}"
    return "above 99.9 %" if text == "100" and part < whole else f"{text} %"


def layer_label(layers: Sequence[int], *, limit: int | None = None) -> str:
    """Name layers by their ranges: `0 to 29`, `3`, `0 to 3, 5 to 8`.

    With more than `limit` ranges (at least 2), the first ones, the last one and the number of layers are named.
    """
    runs: list[list[int]] = []
    for layer in layers:
        if runs and runs[-1][1] == layer - 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    texts = [str(first) if first == last else f"{first} to {last}" for first, last in runs]
    if limit is None or len(texts) <= limit:
        return ", ".join(texts)
    return f"{', '.join(texts[: limit - 1])}, … {texts[-1]} ({len(layers)} layers)"


def _add(row: object, stacks: dict[str, dict[str, _Module]]) -> int | None:
    """Add a row of the map to its stack. Returns the number of its layers, or None if it is invalid."""
    if not isinstance(row, dict):
        return None
    name, stack, states = row.get("module"), row.get("stack", "model.layers"), row.get("states")
    parameters, trained = row.get("parameters"), row.get("trained")
    if not isinstance(name, str) or not isinstance(stack, str) or not isinstance(states, dict):
        return None
    if not is_count(parameters) or not is_count(trained):
        return None
    found: list[tuple[int, str]] = []
    for state, runs in states.items():
        layers = _layers(runs)
        if state not in STATES or layers is None:
            return None
        text = f"{state}, quantized" if row.get("quantized") is True and state in {"adapter", "not reached"} else state
        found += [(layer, text) for layer in layers]
    if any(layer < 0 for layer, _ in found):
        stack = ""
    module = stacks.setdefault(stack[:MAX_NAME], {}).setdefault(NUMBER.sub("*", name[:MAX_NAME]), _Module())
    for layer, text in found:
        module.states[layer].add(text)
    module.parameters += int(str(parameters))
    module.trained += int(str(trained))
    return len(found)


def _layers(runs: object) -> list[int] | None:
    """The layers of ranges `[[first, last], …]`; -1 stands for outside the layers. None if invalid or too many."""
    found: list[int] = []
    for run in runs if isinstance(runs, list | tuple) else [None]:
        if not isinstance(run, list | tuple) or len(run) != 2:  # noqa: PLR2004 - first and last
            return None
        first, last = run
        if not all(type(one) is int and -1 <= one < MAX_LAYERS for one in run) or last < first:
            return None
        found += range(first, last + 1)
        if len(found) > MAX_LAYERS:
            return None
    return found


def _table(name: str, modules: Mapping[str, _Module]) -> dict[str, object]:
    alike: dict[tuple[str | None, ...], list[int]] = {}
    for layer in sorted({layer for one in modules.values() for layer in one.states}):
        cells = tuple(_text(one.states[layer]) if layer in one.states else None for one in modules.values())
        alike.setdefault(cells, []).append(layer)
    return {
        "name": name,
        "columns": [{"module": module, "note": _note(one)} for module, one in modules.items()],
        "rows": [
            {"layers": _row_label(layers), "short": _row_label(layers, limit=FEW_RANGES), "cells": list(cells)}
            for cells, layers in alike.items()
        ],
    }


def _row_label(layers: Sequence[int], *, limit: int | None = None) -> str:
    label = layer_label(layers, limit=limit)
    return f"layer {label}" if len(layers) == 1 else f"layers {label}, each"


def _text(states: Iterable[str]) -> str:
    found = set(states)
    return found.pop() if len(found) == 1 else "mixed"


def _words(states: Iterable[str]) -> tuple[str, ...]:
    """The words of a cell that the legend explains: `adapter, quantized` has two."""
    return tuple(_text(states).split(", "))


def _note(module: _Module) -> str:
    return share_sentence(module.trained, module.parameters)
