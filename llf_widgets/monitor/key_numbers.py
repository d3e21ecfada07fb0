"""The key numbers of a run, compared with its forecast."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from llf_core.runs.charts import EVAL_PREFIX, KeyMetric, held_out_label, key_metrics, primary_metric
from llf_core.runs.curves import best, first, highest, label, last, last_finite, line, median
from llf_core.runs.jsonl import is_finite_number
from llf_widgets.monitor import formatting
from llf_widgets.monitor.snapshot import Number

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy as np

    from llf_core.runs.curves import Series

    Smoothed = Mapping[str, np.ndarray]
    Event = Mapping[str, object]


NO_VALUE = "–"  # noqa: RUF001 - a dash as wide as a digit
LOSS = KeyMetric("loss", "Training loss", "number")


def key_numbers(
    series: Series,
    smoothed: Smoothed,
    window: int,
    forecast: Mapping[str, object] | None = None,
    peak: float | None = None,
) -> tuple[Number, ...]:
    """The numbers at the top of the view, at most six: key metrics first, speed and memory last.

    Args:
        series: steps `[n]` and values `[n]` by metric, as logged.
        smoothed: smoothed values `[n]`, aligned with the series of that name.
        window: smoothing window in steps; 0 for none.
        forecast: the event `forecast`, with which the memory is compared.
        peak: current peak of the learning rate schedule; None if unknown, and the highest rate so far is named instead.
    """
    numbers = [
        _training(series, smoothed, window, one)
        if last(series, EVAL_PREFIX + one.name) is None
        else _held_out(series, one)
        for one in key_metrics(series)
    ]
    if primary_metric(series) == "loss":
        numbers.append(_training(series, smoothed, window, LOSS))
        numbers += [] if numbers[1:] and last(series, EVAL_PREFIX + "loss") is None else [_evaluation(series)]
    norm = median(series, "grad_norm")
    rate = (
        _note("highest so far", formatting.rate, highest(series, "learning_rate"))
        if peak is None
        else _note("peak", formatting.rate, peak)
    )
    return (
        *[
            *numbers,
            _last(series, "learning_rate", "Learning rate", formatting.rate, rate),
            _last(series, "grad_norm", "Gradient norm", formatting.number, _note("median", formatting.number, norm)),
        ][:4],
        _last(series, "tokens_per_second", "Tokens per second", formatting.count, _trained_share(series)),
        _memory(series, forecast),
    )  # fmt: skip


def summary_rows(
    series: Series, smoothed: Smoothed, window: int, events: Sequence[dict[str, Any]], elapsed: float
) -> list[tuple[str, str, str]]:
    """The known rows of a saved notebook's table, see `key_numbers`; `elapsed` are seconds of training."""
    rows = [(one.label, one.value, one.note) for one in _metric_rows(series, smoothed, window)]
    tokens, trained = last(series, "tokens"), last(series, "trained_tokens")
    if tokens is not None:
        rows.append(
            ("Tokens", formatting.count(tokens), "" if trained is None else f"{formatting.count(trained)} trained")
        )
    speed, memory = median(series, "tokens_per_second"), highest(series, "memory")
    forecast = next((event for event in reversed(events) if event.get("type") == "forecast"), None)
    if speed is not None:
        rows.append(("Tokens per second, median", formatting.count(speed), ""))
    if memory is not None:
        rows.append(("Peak memory", " ".join(formatting.size(memory)), memory_note(series, forecast)))
    row = step_row(series, forecast)
    rows += [] if row is None else [row]
    rows.append(("Time", formatting.duration(elapsed), ""))
    for event in reversed(events):
        if event.get("type") == "model" and isinstance(event.get("trainable"), int):
            rows.append(
                ("Trainable", formatting.count(event["trainable"]), f"of {event.get('parameters', 0):,} parameters")
            )
            break
    by_hand = [str(event["says"]) for event in events if event.get("type") == "steered" and _by_hand(event)]
    if by_hand:
        rows.append(("Changed while running", str(len(by_hand)), " ".join(by_hand)))
    return rows


def _metric_rows(series: Series, smoothed: Smoothed, window: int) -> list[Number]:
    """Key metrics, validation before training, then the losses if they are meaningful."""
    numbers = []
    for one in key_metrics(series):
        if last(series, EVAL_PREFIX + one.name) is not None:
            numbers.append(_held_out_row(series, one))
        if last(series, one.name) is not None:
            numbers.append(_training(series, smoothed, window, one))
    if primary_metric(series) == "loss":
        numbers += [_training(series, smoothed, window, LOSS)] if last(series, "loss") is not None else []
        numbers += [_evaluation(series)] if last(series, EVAL_PREFIX + "loss") is not None else []
    return numbers


def _by_hand(event: dict[str, object]) -> bool:
    return "says" in event and not event.get("again")


def _training(series: Series, smoothed: Smoothed, window: int, one: KeyMetric) -> Number:
    now, began = last(series, one.name), first(series, one.name)
    if now is None or began is None:
        return Number(one.label, NO_VALUE, note="not logged yet")
    if not math.isfinite(now):
        return Number(one.label, formatting.number(now), note="not a finite number")
    mean = last_finite(smoothed.get(one.name, line(series, one.name)[1]))
    notes = [f"{formatting.value(mean, one.form)} {label(window)}"] if window and mean is not None else []
    notes.append(f"first {formatting.value(began, one.form)}")
    return Number(one.label, formatting.value(now, one.form), note="; ".join(notes))


def _held_out(series: Series, one: KeyMetric) -> Number:
    value, training = last(series, EVAL_PREFIX + one.name), last(series, one.name)
    note = "" if training is None else f"training {formatting.value(training, one.form)}"
    return Number(held_out_label(one.label), _write(value, one), note=note)


def _held_out_row(series: Series, one: KeyMetric) -> Number:
    steps, values = line(series, EVAL_PREFIX + one.name)
    began = f"first {formatting.value(float(values[0]), one.form)}, " if values.size > 1 else ""
    return Number(held_out_label(one.label), _write(float(values[-1]), one), note=f"{began}at step {int(steps[-1]):,}")


def _write(value: float | None, one: KeyMetric) -> str:
    return NO_VALUE if value is None else formatting.value(value, one.form)


def _evaluation(series: Series) -> Number:
    now, found = last(series, EVAL_PREFIX + "loss"), best(series, EVAL_PREFIX + "loss")
    if now is None:
        return Number("Evaluation loss", NO_VALUE, note="not evaluated yet")
    note = "" if found is None else f"best {formatting.number(found[1])} at step {found[0]:,}"
    return Number("Evaluation loss", formatting.number(now), note=note)


def _last(series: Series, name: str, label: str, write: Callable[[float], str], note: str) -> Number:
    value = last(series, name)
    return Number(label, NO_VALUE) if value is None else Number(label, write(value), note=note)


def _note(word: str, write: Callable[[float], str], value: float | None) -> str:
    return "" if value is None else f"{word} {write(value)}"


def _memory(series: Series, forecast: Mapping[str, object] | None) -> Number:
    now, highest_value = last(series, "memory"), highest(series, "memory")
    if now is None:
        return Number("Memory", NO_VALUE)
    peak = "" if highest_value is None else "highest {} {}".format(*formatting.size(highest_value))
    notes = [note for note in (peak, memory_note(series, forecast)) if note]
    return Number("Memory", *formatting.size(now), note="; ".join(notes))


def _trained_share(series: Series) -> str:
    tokens, trained = last(series, "tokens"), last(series, "trained_tokens")
    if tokens is None or trained is None or not tokens > 0:
        return ""
    return f"{formatting.share(trained / tokens)} of them in the loss"


def training_seconds(moments: Iterable[tuple[int, float]], attempt: int, until: float | None) -> float:
    """Seconds of training, without pauses between attempts.

    Args:
        moments: (attempt, Unix time) of everything the run wrote; without any, the result is 0.
        until: current time (Unix seconds) for a live run; None for an ended one, which counts up to its last record.
    """
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    for number, moment in moments:
        first[number] = min(first.get(number, moment), moment)
        last[number] = max(last.get(number, moment), moment)
    if until is not None and attempt in first:
        last[attempt] = max(last[attempt], until)
    return sum(last[number] - first[number] for number in first)


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
