"""Results of evaluations of runs, side by side, with win rates of judges."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

from llf_core.config.number_format import with_unit
from llf_core.evaluation.judge.win_rate import stored_win_rates
from llf_core.metrics.likelihood import BITS_PER_BYTE, LOSS, PERPLEXITY, TOKEN_ACCURACY
from llf_core.runs.evaluations import MetricValue, results_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llf_core.runs import RunFolder
    from llf_core.runs.evaluations import EvaluationResult

OF_LOSSES = frozenset(one.name for one in (LOSS, PERPLEXITY, BITS_PER_BYTE, TOKEN_ACCURACY))


@dataclass(frozen=True)
class EvaluatedMetric:
    """A metric on the same examples, of several runs; `direction` says whether `more` or `less` is better."""

    label: str
    unit: str
    direction: str
    values: Mapping[str, float]


def evaluated_metrics(folders: Iterable[RunFolder]) -> list[EvaluatedMetric]:
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
