"""The charts of a run, one row each. To add a chart, add a row to `CHARTS`.

All views draw the rows whose metrics a run has logged, whatever its stage. `llf_widgets.plotting` and
`llf_widgets.monitor.plotly_figure` compute axes and positions. Lists, logs and summaries use a row's `form` too.

Which metrics a run has logged, the chart of each, and which matter most. The charts themselves: `runs.charts`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


Form = Literal["number", "share", "count", "rate", "bytes"]
"""Number format: a `share` from 0 to 1 is shown in percent, `bytes` are drawn in GB; `rate` is for learning rates."""
Place = Literal["top", "middle", "bottom"]

LOW, HIGH = "/low", "/high"
"""Suffixes of the bounds of the 95 % interval of an evaluation metric; charts draw it as a band."""
BOUND_LABELS: Mapping[str, str] = {LOW: "95 % interval, low", HIGH: "95 % interval, high"}


@dataclass(frozen=True)
class Chart:
    """Metrics that are shown together.

    Attributes:
        help: one sentence: what it measures, and how it develops in a good run. Small charts do not show it.
        lines: label by metric name, in display order; `*` in a name matches any word, which replaces `*` in the label.
        form: number format of axis, labels and hover text.
        place: position and style. `top`: the large chart, for the first of these rows that a run has logged; the others
            move to the middle. It marks checkpoints, resumes and live changes. `middle`: two in a row, with `help`,
            smoothed lines and labels. `bottom`: small, four in a row, with the last value; in every run, also before it
            has logged anything. Rows at the top and at the bottom have one metric.
        log: whether a logarithmic axis is useful.
        level: reference value marked in the chart, in the units of its axis.
        maximum: maximum possible value, in the units of its axis, if the axis should always reach it.
        aside: replaces `help` if another metric is the primary one.
        detail: whether the chart is only needed for diagnosis; so are charts whose `aside` applies.
    """

    title: str
    help: str
    lines: Mapping[str, str]
    form: Form = "number"
    place: Place = "middle"
    log: bool = False
    level: float | None = None
    level_label: str = ""
    maximum: float | None = None
    aside: str = ""
    detail: bool = False


CHARTS: tuple[Chart, ...] = (
    Chart(
        "Reward",
        "Mean reward of the completions. It should rise, then level off.",
        {"reward": "reward"},
        place="top",
    ),
    Chart(
        "Reward by function",
        "Mean of each reward function. If one rises while the others do not, the model may be exploiting it.",
        {"rewards/*/mean": "*", "rewards/*": "*"},
    ),
    Chart(
        "Rewards",
        "Implicit rewards of the chosen and the rejected responses. The margin between them should grow.",
        {"rewards/chosen": "chosen", "rewards/rejected": "rejected", "rewards/margins": "margin"},
        level=0.0,
    ),
    Chart(
        "Accuracy",
        "Share of pairs whose chosen response has the higher reward. The evaluation set tells more than the training "
        "set.",
        {"rewards/accuracies": "training"},
        form="share",
        level=0.5,
        level_label="chance",
        maximum=1.0,
    ),
    Chart(
        "Log-probabilities",
        "Log-probabilities of the responses; closer to 0 is likelier. Chosen should not fall along with rejected.",
        {"logps/chosen": "chosen", "logps/rejected": "rejected"},
    ),
    Chart(
        "KL divergence",
        "KL divergence of the policy from the reference model. A sudden jump often means reward hacking.",
        {"kl": "KL"},
        log=True,
    ),
    Chart(
        "Entropy",
        "Entropy of the next-token distribution. Near 0 the policy no longer explores.",
        {"entropy": "entropy"},
    ),
    Chart(
        "Completion length, tokens",
        "Length of the completions. Watch for growth without reward, and for completions truncated at the limit.",
        {
            "response_length": "mean",
            "completions/mean_length": "mean",
            "completions/min_length": "shortest",
            "completions/max_length": "longest",
        },
        form="count",
    ),
    Chart(
        "Length of terminated completions, tokens",
        "Length of the completions that end with an EOS token; 0 if there are none.",
        {
            "completions/mean_terminated_length": "mean",
            "completions/min_terminated_length": "shortest",
            "completions/max_terminated_length": "longest",
        },
        form="count",
        detail=True,
    ),
    Chart(
        "Completion endings",
        "Share of completions that end with an EOS token, or are truncated at the limit. Most should end with EOS.",
        {"response_ended": "EOS", "completions/clipped_ratio": "truncated"},
        form="share",
        maximum=1.0,
    ),
    Chart(
        "Reward standard deviation",
        "Standard deviation of the rewards. At 0 all advantages are 0 and there is no learning signal.",
        {"reward_std": "all", "rewards/*/std": "*"},
        detail=True,
    ),
    Chart(
        "Prompts with zero reward variance",
        "Share of prompts whose completions all have the same reward. They give no learning signal.",
        {"frac_reward_zero_std": "share"},
        form="share",
    ),
    Chart(
        "Clip fraction",
        "Share of tokens whose probability ratio was clipped. A few percent are typical.",
        {
            "clip_fraction": "policy",
            "value_clip_fraction": "value",
            "clip_ratio/region_mean": "all",
            "clip_ratio/low_mean": "low",
            "clip_ratio/high_mean": "high",
            "clip_ratio/low_min": "low, minimum",
            "clip_ratio/high_max": "high, maximum",
        },
        form="share",
        detail=True,
    ),
    Chart(
        "Update size",
        "Approximate KL between the updated policy and the one that sampled the completions. It should stay small.",
        {"approx_kl": "KL"},
        detail=True,
    ),
    Chart(
        "Loss",
        "The training objective, which the optimizer minimizes.",
        {"loss": "training"},
        place="top",
        log=True,
        aside="The training objective. It says little about the quality of completions: watch the reward instead.",
    ),
    Chart(
        "Token accuracy",
        "Share of tokens in the loss that are the most likely ones, on validation examples.",
        {"accuracy": "value"},
        form="share",
        maximum=1.0,
    ),
    Chart(
        "ROUGE-1",
        "Words in common with the reference, of generated answers to validation examples.",
        {"rouge1": "value"},
        form="share",
    ),
    Chart(
        "ROUGE-2",
        "Pairs of words in common with the reference, of generated answers to validation examples.",
        {"rouge2": "value"},
        form="share",
    ),
    Chart(
        "ROUGE-L",
        "Longest common subsequence with the reference, of generated answers to validation examples.",
        {"rougeL": "value"},
        form="share",
    ),
    Chart(
        "BLEU",
        "N-grams of words in common with the reference, of generated answers to validation examples.",
        {"bleu": "value"},
    ),
    Chart(
        "chrF",
        "N-grams of characters in common with the reference, of generated answers to validation examples.",
        {"chrf": "value"},
    ),
    Chart(
        "Exact match",
        "Share of generated answers to validation examples that equal the reference.",
        {"exact_match": "value"},
        form="share",
    ),
    Chart(
        "F1",
        "Words in common with the reference in any order, of generated answers to validation examples.",
        {"f1": "value"},
        form="share",
    ),
    Chart(
        "Forgetting",
        "Loss on general questions, and KL divergence from the base. If the loss rises, the model forgets.",
        {"forgetting/loss": "loss", "forgetting/kl": "KL from the base"},
    ),
    Chart(
        "Loss terms",
        "Terms of the loss, before weighting.",
        {
            "policy_loss": "policy",
            "value_loss": "value",
            "sft_loss": "SFT",
            "odds_ratio_loss": "odds ratio",
            "kd_loss": "distillation",
            "reference_kl": "KL to the reference",
            "aux_loss": "load balancing",
        },
        detail=True,
    ),
    Chart(
        "KL coefficient",
        "Coefficient β of the KL penalty. It grows while the KL is above its target.",
        {"kl_coef": "coefficient"},
        detail=True,
    ),
    Chart(
        "Explained variance",
        "Explained variance of the value function: 1 is perfect, 0 is no better than predicting the mean.",
        {"explained_variance": "share"},
        level=0.0,
        detail=True,
    ),
    Chart(
        "Advantages",
        "Mean advantage: return minus predicted value. It is near 0 once the value function has learned.",
        {"advantages": "mean"},
        level=0.0,
        detail=True,
    ),
    Chart(
        "Unscored completions",
        "Share of completions for which a reward function returned None. Without a reward they are skipped.",
        {"unjudged": "no reward", "rewards/*/skipped": "*"},
        form="share",
        detail=True,
    ),
    Chart(
        "GPU",
        "GPU and GPU memory utilization. If the GPU is often idle, increase the batch size.",
        {"gpu/utilization": "utilization", "gpu/memory": "memory"},
        form="share",
        maximum=1.0,
        detail=True,
    ),
    Chart(
        "GPU temperature, °C",
        "Temperature of the GPU. Most GPUs throttle above about 85 °C.",
        {"gpu/temperature": "temperature"},
        detail=True,
    ),
    Chart(
        "Waiting for other processes, seconds",
        "How long each process waits for the others in a step. The slowest one waits least.",
        {"waiting/*": "process *"},
        detail=True,
    ),
    Chart(
        "Expert balance loss",
        "How unevenly routers spread tokens over experts. Evenly spread, it is the number of experts for each token.",
        {"aux_loss": "balance loss"},
        detail=True,
    ),
    Chart("Learning rate", "", {"learning_rate": "learning rate"}, form="rate", place="bottom"),
    Chart("Gradient norm", "", {"grad_norm": "gradient norm"}, place="bottom"),
    Chart("Tokens per second", "", {"tokens_per_second": "tokens per second"}, form="count", place="bottom"),
    Chart("Memory, GB", "", {"memory": "memory"}, form="bytes", place="bottom"),
)
"""All charts, most important first. Other metrics form one chart per family, at the end of the middle."""

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
    leads = [name for chart in CHARTS if chart.place == "top" for name in chart.lines]
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
    order = [title for chart in CHARTS for title in (chart.title, chart.title + BY_SET)]
    ranked = sorted(found.items(), key=lambda one: order.index(one[0]) if one[0] in order else len(order))
    return [
        LoggedChart(replace(chart, help=chart.aside, detail=True) if chart.aside and first not in lines else chart,
                    _in_order(chart, lines))
        for _, (chart, lines) in ranked
    ]  # fmt: skip


def _is_bound(name: str, logged: Collection[str]) -> bool:
    return any(name.endswith(bound) and name.removesuffix(bound) in logged for bound in BOUND_LABELS)


def bottom_charts() -> list[LoggedChart]:
    """The small charts at the bottom, which every run has."""
    return [LoggedChart(chart, chart.lines) for chart in CHARTS if chart.place == "bottom"]


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
    patterns = [(chart, pattern, label) for chart in CHARTS for pattern, label in chart.lines.items()]
    for chart, pattern, label in sorted(patterns, key=lambda one: "*" in one[1]):  # exact names before patterns
        match = re.fullmatch(re.escape(pattern).replace(r"\*", "([^/]+)"), name)
        if match is not None:
            return chart, label.replace("*", match.group(1)) if match.groups() else label
    return None


def _row_by_set(name: str) -> tuple[Chart, str] | None:
    """The chart of a metric of one data set, with the data set as its label."""
    rows = [(chart, own) for chart in CHARTS for own in chart.lines if "*" not in own]
    for chart, own in sorted(rows, key=lambda row: -len(row[1])):
        source = name.removesuffix(f"_{own}")
        if source not in {name, ""} and "/" not in source:
            by_set = replace(chart, title=chart.title + BY_SET, lines={}, place="middle", aside="")
            return by_set, source if own == next(iter(chart.lines)) else f"{source}, {chart.lines[own]}"
    return None


def _in_order(chart: Chart, lines: Mapping[str, str]) -> dict[str, str]:
    listed = list(chart.lines)
    return dict(sorted(lines.items(), key=lambda one: listed.index(one[0]) if one[0] in listed else len(listed)))
