"""Which metrics a run has logged, the chart of each, and which matter most. The charts themselves: `runs.charts`."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from llf_core.runs import charts
from llf_core.runs.charts import Chart

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from llf_core.runs.charts import Form

EVAL_PREFIX = "eval_"
"""Prefix of metrics computed on validation examples."""
BY_SET = " by data set"
"""Suffix of the title of a chart with a metric of each data set, see `eval_on_each_dataset`."""
COUNTERS = frozenset({"epoch", "tokens", "trained_tokens", "step_seconds", "num_tokens", "step_time"})
"""Counters and clocks, which have no chart."""


@dataclass(frozen=True)
class LoggedChart:
    """A chart restricted to the metrics that a run has logged; `lines` has the label by name without `eval_`."""

    chart: Chart
    lines: Mapping[str, str]


KEY_METRICS = ("rewards/accuracies", "rewards/margins", "reward", "kl", "response_length", "completions/mean_length")
"""Metrics that show the quality of a run besides its loss, most important first."""
_LABELS = {
    "rewards/accuracies": "Training accuracy",
    "rewards/margins": "Training margin",
    "kl": "KL divergence",
    "response_length": "Completion length",
    "completions/mean_length": "Completion length",
}
RANKING_METRICS = ("rewards/accuracies", "reward", "loss")
"""Metrics that rank runs if the configs do not name the best metric, most important first."""

NOTHING_DECLARED: Mapping[str, bool] = MappingProxyType({})
"""Directions of a run that has written none."""


@dataclass(frozen=True)
class KeyMetric:
    """A metric that shows the quality of a run."""

    name: str
    label: str
    form: Form


def primary_metric(names: Iterable[str]) -> str:
    """The metric of the large chart: the reward if logged, else the loss."""
    found = set(names)
    leads = [name for chart in charts.CHARTS if chart.place == "top" for name in chart.lines]
    return next((name for name in leads if name in found), leads[-1])


def key_metrics(names: Iterable[str]) -> list[KeyMetric]:
    """The key metrics among those logged (with or without `eval_`), most important first."""
    found = {name.removeprefix(EVAL_PREFIX) for name in names}
    return [
        KeyMetric(name, _LABELS.get(name, name.capitalize()), _chart_of(name)[0].form)
        for name in KEY_METRICS
        if name in found
    ]


def key_values(values: Mapping[str, float]) -> list[dict[str, Any]]:
    """Key metrics with their last values as JSON: `{"name", "label", "form", "value"}`, evaluation before training."""
    found = []
    for one in key_metrics(values):
        for name, label in ((EVAL_PREFIX + one.name, held_out_label(one.label)), (one.name, one.label)):
            if name in values:
                found.append({"name": name, "label": label, "form": one.form, "value": values[name]})
    return found


def held_out_label(label: str) -> str:
    """Label of a metric on validation examples: `Held-out accuracy` for `Training accuracy`."""
    return f"Held-out {lowercase_label(lowercase_label(label).removeprefix('training '))}"


def lowercase_label(label: str) -> str:
    """Label for use within a sentence: `accuracy`, but `KL divergence`."""
    return label if label[1:2].isupper() else label[:1].lower() + label[1:]


def ranking_metric(names: Iterable[str]) -> KeyMetric:
    """The metric by which runs are ranked: the first of `RANKING_METRICS` that any of them has logged."""
    found = {name.removeprefix(EVAL_PREFIX) for name in names}
    return metric_named(next((name for name in RANKING_METRICS if name in found), "loss"))


def metric_named(name: str) -> KeyMetric:
    """A metric, by its name without `eval_`, with its label and number format."""
    if listed := key_metrics([name]):
        return listed[0]
    chart, label = _chart_of(name, evaluated=True)
    if chart.title.endswith(BY_SET):
        return KeyMetric(name, f"{chart.title.removesuffix(BY_SET)}, {label}", chart.form)
    return KeyMetric(name, chart.title if name == next(iter(chart.lines), None) else name, chart.form)


def higher_is_better(name: str, declared: Mapping[str, bool] = NOTHING_DECLARED) -> bool | None:
    """Whether a higher value of a metric is better, as declared by its stage or the metric; None if undeclared.

    Args:
        name: as logged, with or without `eval_`.
        declared: directions declared by the run, see `declared_directions`; they take precedence.
    """
    from llf_core.config.declaration import MetricDeclaration, PluginError, StageDeclaration
    from llf_core.config.registry import declared as registered

    plain = name.removeprefix(EVAL_PREFIX)
    known = {"loss": False} | dict(declared)
    if plain not in known:
        with suppress(PluginError):  # two packages clash: every config says so, and a run of before can still be shown
            for stage in registered(StageDeclaration).values():
                known |= stage.evaluation_metrics
            known |= {one.name: one.higher_is_better for one in registered(MetricDeclaration).values()}
    return known.get(plain)


def declared_directions(resolved: Mapping[str, object]) -> dict[str, bool]:
    """Whether higher is better, by name without `eval_`, as the trainer wrote it into `resolved.yaml`.

    Metrics of the user's functions and of single data sets are declared there alone.
    """
    written = resolved.get("metrics")
    if not isinstance(written, dict):
        return {}
    return {str(name): better == "higher" for name, better in written.items() if better in ("higher", "lower")}


def logged_charts(names: Iterable[str]) -> list[LoggedChart]:
    """The charts of a run's logged metrics, most important first, without those at the bottom.

    Every other name is in a chart, except `COUNTERS` and bounds of intervals, which are bands in the chart of their
    metric.
    """
    found: dict[str, tuple[Chart, dict[str, str]]] = {}
    every = list(names)
    trained = {name for name in every if not name.startswith(EVAL_PREFIX)}
    logged = list(dict.fromkeys(name.removeprefix(EVAL_PREFIX) for name in every))
    first = primary_metric(logged)
    for name in logged:
        chart, label = _chart_of(name, evaluated=name not in trained)
        if name not in COUNTERS and chart.place != "bottom" and not _is_bound(name, logged):
            found.setdefault(chart.title, (chart, {}))[1][name] = label
    order = [title for chart in charts.CHARTS for title in (chart.title, chart.title + BY_SET)]
    ranked = sorted(found.items(), key=lambda one: order.index(one[0]) if one[0] in order else len(order))
    return [
        LoggedChart(replace(chart, help=chart.aside, detail=True) if chart.aside and first not in lines else chart,
                    _in_order(chart, lines))
        for _, (chart, lines) in ranked
    ]  # fmt: skip


def _is_bound(name: str, logged: Collection[str]) -> bool:
    return any(name.endswith(bound) and name.removesuffix(bound) in logged for bound in charts.BOUND_LABELS)


def bottom_charts() -> list[LoggedChart]:
    """The small charts at the bottom, which every run has."""
    return [LoggedChart(chart, chart.lines) for chart in charts.CHARTS if chart.place == "bottom"]


def _chart_of(name: str, *, evaluated: bool = False) -> tuple[Chart, str]:
    """The chart of a metric (without `eval_`), and its label there.

    Args:
        evaluated: whether evaluations alone log it, so that `identity_loss` is the loss of the data set `identity`.
    """
    found = _row_of(name) or (_row_by_set(name) if evaluated else None)
    if found is not None:
        return found
    family, _, last = name.rpartition("/")
    return Chart(family or name, "Values that the run logged under this name.", {}), last


def _row_of(name: str) -> tuple[Chart, str] | None:
    patterns = [(chart, pattern, label) for chart in charts.CHARTS for pattern, label in chart.lines.items()]
    for chart, pattern, label in sorted(patterns, key=lambda one: "*" in one[1]):  # exact names before patterns
        match = re.fullmatch(re.escape(pattern).replace(r"\*", "([^/]+)"), name)
        if match is not None:
            return chart, label.replace("*", match.group(1)) if match.groups() else label
    return None


def _row_by_set(name: str) -> tuple[Chart, str] | None:
    """The chart of a metric of one data set, with the data set as its label."""
    rows = [(chart, own) for chart in charts.CHARTS for own in chart.lines if "*" not in own]
    for chart, own in sorted(rows, key=lambda row: -len(row[1])):
        source = name.removesuffix(f"_{own}")
        if source not in {name, ""} and "/" not in source:
            by_set = replace(chart, title=chart.title + BY_SET, lines={}, place="middle", aside="")
            return by_set, source if own == next(iter(chart.lines)) else f"{source}, {chart.lines[own]}"
    return None


def _in_order(chart: Chart, lines: Mapping[str, str]) -> dict[str, str]:
    listed = list(chart.lines)
    return dict(sorted(lines.items(), key=lambda one: listed.index(one[0]) if one[0] in listed else len(listed)))
