"""The key numbers of a run, each with what it is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.runs.measures import HELD_OUT, counted, held_out_label, lead
from llf_widgets.monitor import words
from llf_widgets.monitor.facts import Number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.runs.measures import Counted

    Series = Mapping[str, tuple[np.ndarray, np.ndarray]]  # name -> (steps, values), undecimated
    Smoothed = Mapping[str, np.ndarray]

NONE = "–"  # noqa: RUF001 - a dash as wide as a digit


def key_numbers(series: Series, smoothed: Smoothed) -> tuple[Number, ...]:
    """The six numbers in the view's head: what counts of a run first, speed and memory last.

    Args:
        series: what the run logged.
        smoothed: name -> [n], smoothed values beside the series of that name.
    """
    told = [_counted(series, smoothed, one) for one in counted(series)]
    evaluated = _get(series, HELD_OUT + "loss")[1].size > 0
    if lead(series) == "loss":
        told.append(_loss(series, smoothed))
        told += [] if told[1:] and not evaluated else [_evaluation(series)]
    return (
        *[
            *told,
            _last(series, "learning_rate", "Learning rate", words.small, lambda y: f"peak {words.small(_max(y))}"),
            _last(series, "grad_norm", "Gradient norm", words.number, lambda y: f"median {words.number(_median(y))}"),
        ][:4],
        _last(series, "tokens_per_second", "Tokens per second", words.count, lambda _: _trained_share(series)),
        _memory(series),
    )


def summary_rows(
    series: Series, smoothed: Smoothed, events: tuple[dict[str, Any], ...], elapsed: float
) -> list[tuple[str, str, str]]:
    """What a saved notebook tells of a run: (what, value, comparison), without rows that are not known."""
    rows = [row for one in counted(series) for row in _counted_rows(series, smoothed, one)]
    _, loss = _get(series, "loss")
    if loss.size and lead(series) == "loss":
        rows.append(("Training loss", words.number(_end(smoothed["loss"])), f"from {words.number(float(loss[0]))}"))
    steps, evaluation = _get(series, "eval_loss")
    if evaluation.size and lead(series) == "loss":
        text = f"last {words.number(float(evaluation[-1]), 4)}, first {words.number(float(evaluation[0]), 4)}"
        best = _argmin(evaluation)
        if best is None:
            rows.append(("Evaluation loss", words.number(float(evaluation[-1]), 4), ""))
        else:
            rows.append(
                (
                    "Evaluation loss",
                    words.number(float(evaluation[best]), 4),
                    f"best, at step {steps[best]}; {text}",
                )
            )
    _, tokens = _get(series, "tokens")
    _, trained = _get(series, "trained_tokens")
    if tokens.size:
        rows.append(("Tokens", words.count(tokens[-1]), f"{words.count(trained[-1])} trained" if trained.size else ""))
    _, speed = _get(series, "tokens_per_second")
    if speed.size:
        rows.append(("Tokens per second", words.count(_median(speed)), "median"))
    _, memory = _get(series, "memory")
    if memory.size:
        rows.append(("Memory", " ".join(words.size(_max(memory))), "highest"))
    rows.append(("Time", words.duration(elapsed), ""))
    for event in reversed(events):
        if event.get("type") == "model" and isinstance(event.get("trainable"), int):
            rows.append(("Trained", words.count(event["trainable"]), f"of {event.get('parameters', 0):,} parameters"))
            break
    told = [str(event["says"]) for event in events if event.get("type") == "steered" and _by_hand(event)]
    if told:
        rows.append(("Changed by hand", str(len(told)), " ".join(told)))
    return rows


def _by_hand(event: dict[str, Any]) -> bool:
    return "says" in event and not event.get("again")


def _get(series: Series, name: str) -> tuple[np.ndarray, np.ndarray]:
    return series.get(name, (np.empty(0, dtype=np.int64), np.empty(0)))


def _counted(series: Series, smoothed: Smoothed, one: Counted) -> Number:
    """A number that counts: held out where that was measured, else smoothed over the training."""
    _, training = _get(series, one.name)
    _, held_out = _get(series, HELD_OUT + one.name)
    now = _end(smoothed.get(one.name, training))
    if held_out.size:
        note = f"held out; {words.value(now, one.form)} in training" if training.size else "held out"
        return Number(one.label, words.value(float(held_out[-1]), one.form), note=note)
    first = words.value(float(training[0]), one.form)
    return Number(one.label, words.value(now, one.form), note=f"smoothed; from {first}")


def _counted_rows(series: Series, smoothed: Smoothed, one: Counted) -> list[tuple[str, str, str]]:
    steps, held_out = _get(series, HELD_OUT + one.name)
    _, training = _get(series, one.name)
    rows = []
    if held_out.size:
        first = f"first {words.value(float(held_out[0]), one.form)}, " if held_out.size > 1 else ""
        note = f"{first}at step {steps[-1]:,}"
        rows.append((held_out_label(one.label), words.value(float(held_out[-1]), one.form), note))
    if training.size:
        first = words.value(float(training[0]), one.form)
        rows.append((one.label, words.value(_end(smoothed.get(one.name, training)), one.form), f"from {first}"))
    return rows


def _loss(series: Series, smoothed: Smoothed) -> Number:
    _, loss = _get(series, "loss")
    if loss.size == 0:
        return Number("Training loss", NONE, note="none logged yet")
    if not np.isfinite(loss[-1]):
        return Number("Training loss", words.number(float(loss[-1])), note="not a finite number")
    return Number(
        "Training loss",
        words.number(_end(smoothed["loss"])),
        note=f"smoothed; {words.number(float(loss[0]))} at the start",
    )


def _evaluation(series: Series) -> Number:
    steps, loss = _get(series, "eval_loss")
    if loss.size == 0:
        return Number("Evaluation loss", NONE, note="none so far")
    best = _argmin(loss)
    note = "" if best is None else f"best {words.number(float(loss[best]), 4)} at step {int(steps[best]):,}"
    return Number("Evaluation loss", words.number(float(loss[-1]), 4), note=note)


def _last(series: Series, name: str, label: str, write: Any, compare: Any) -> Number:
    _, values = _get(series, name)
    if values.size == 0:
        return Number(label, NONE)
    return Number(label, write(float(values[-1])), note=compare(values))


def _memory(series: Series) -> Number:
    _, values = _get(series, "memory")
    if values.size == 0:
        return Number("Memory", NONE)
    amount, unit = words.size(float(values[-1]))
    return Number("Memory", amount, unit, note="highest {} {}".format(*words.size(_max(values))))


def _trained_share(series: Series) -> str:
    _, tokens = _get(series, "tokens")
    _, trained = _get(series, "trained_tokens")
    if tokens.size == 0 or trained.size == 0 or not tokens[-1] > 0:
        return ""
    return f"{100 * trained[-1] / tokens[-1]:.0f} % of them trained"


def _end(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite[-1]) if finite.size else float("nan")


def _median(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")


def _max(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if finite.size else float("nan")


def _argmin(values: np.ndarray) -> int | None:
    finite = np.flatnonzero(np.isfinite(values))
    return int(finite[np.argmin(values[finite])]) if finite.size else None
