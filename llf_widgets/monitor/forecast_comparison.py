"""Comparison of a run with its forecast."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.runs.event_fields import is_finite_number
from llf_core.runs.summary_numbers import highest, median
from llf_widgets.monitor import formatting

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.runs.summary_numbers import Series

    Event = Mapping[str, object]


def memory_note(series: Series, forecast: Event | None) -> str:
    """The forecast peak memory with the difference of the highest logged value: `forecast 1.65 GB (+7 %)`."""
    told, seen = _number(forecast, "memory"), highest(series, "memory")
    if told is None or seen is None:
        return ""
    return f"forecast {' '.join(formatting.size(told))} ({_difference(seen, told)})"


def step_row(series: Series, forecast: Event | None) -> tuple[str, str, str] | None:
    """Label, median seconds of a step `[n]`, and comparison with their forecast; None without a logged value."""
    seen = median(series, "step_seconds")
    if seen is None:
        return None
    told, low, high = (_number(forecast, name) for name in ("step_seconds", "low", "high"))
    note = "" if told is None else f"forecast {_seconds(told)} ({_difference(seen, told)})"
    if note and low is not None and high is not None:
        note += f", range {_seconds(low)} to {_seconds(high)}"
    return ("Time per step, median", _seconds(seen), note)


def forecast_line(event: Event) -> str:
    """A line of the event log: `forecast: 0.34 s a step (0.19 s to 0.61 s), 1.65 GB`; empty if it says nothing."""
    told, low, high, memory = (_number(event, name) for name in ("step_seconds", "low", "high", "memory"))
    if told is None:
        return ""
    span = "" if low is None or high is None else f" ({_seconds(low)} to {_seconds(high)})"
    size = "" if memory is None else f", {' '.join(formatting.size(memory))}"
    return f"forecast: {_seconds(told)} a step{span}{size}"


def _number(event: Event | None, name: str) -> float | None:
    """A positive number of an event; None if it is missing or invalid, since the file may be of another version."""
    value = (event or {}).get(name)
    return float(value) if isinstance(value, int | float) and is_finite_number(value) and value > 0 else None


def _difference(seen: float, told: float) -> str:
    return f"{100 * (seen / told - 1):+.0f} %"


def _seconds(value: float) -> str:
    return f"{value:.3g} s"
