"""Catalog of metrics: groups, labels, number formats, and which metrics matter most.

Views show the groups of the metrics that a run has logged, whatever its stage. Plug-in stages may log any name: unknown
names form groups by the part before the slash.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Form = Literal["number", "share", "count"]

EVAL_PREFIX = "eval_"
"""Prefix of metrics computed on validation examples."""
UNGROUPED = frozenset(
    {
        "learning_rate", "grad_norm", "tokens_per_second", "memory",  # shown in separate charts of every run
        "epoch", "tokens", "trained_tokens", "step_seconds", "num_tokens", "step_time",  # counters and clocks
    }
)  # fmt: skip
"""Metrics that belong to no group."""


@dataclass(frozen=True)
class Group:
    """Metrics that are shown together.

    Attributes:
        title: heading.
        help: one sentence: what it measures, and how it develops in a good run.
        lines: label by metric name, in display order; `*` in a name matches any word, which replaces `*` in the label.
        form: number format; `share` is a number from 0 to 1 shown in percent.
        log: whether a logarithmic axis is useful.
        level: reference value marked in the chart.
        level_label: label of the reference value.
        top: maximum possible value, if the axis should always reach it.
        aside: replaces `help` if another metric is the primary one.
        detail: whether the group is only needed for diagnosis; so are groups whose `aside` applies.
    """

    title: str
    help: str
    lines: Mapping[str, str]
    form: Form = "number"
    log: bool = False
    level: float | None = None
    level_label: str = ""
    top: float | None = None
    aside: str = ""
    detail: bool = False


@dataclass(frozen=True)
class LoggedGroup:
    """A group restricted to what a run has logged.

    Attributes:
        group: the group.
        lines: label by logged metric name, without the evaluation prefix.
    """

    group: Group
    lines: Mapping[str, str]


GROUPS: tuple[Group, ...] = (
    Group("Reward", "Mean reward of the completions. It should rise, then level off.", {"reward": "reward"}),
    Group(
        "Reward by function",
        "Mean of each reward function. If one rises while the others do not, the model may be exploiting it.",
        {"rewards/*/mean": "*", "rewards/*": "*"},
    ),
    Group(
        "Rewards",
        "Implicit rewards of the chosen and the rejected responses. The margin between them should grow.",
        {"rewards/chosen": "chosen", "rewards/rejected": "rejected", "rewards/margins": "margin"},
        level=0.0,
    ),
    Group(
        "Accuracy",
        "Share of pairs whose chosen response has the higher reward. The evaluation set tells more than the training "
        "set.",
        {"rewards/accuracies": "training"},
        form="share",
        level=0.5,
        level_label="chance",
        top=1.0,
    ),
    Group(
        "Log-probabilities",
        "Log-probabilities of the responses; closer to 0 is likelier. Chosen should not fall along with rejected.",
        {"logps/chosen": "chosen", "logps/rejected": "rejected"},
    ),
    Group(
        "KL divergence",
        "KL divergence of the policy from the reference model. A sudden jump often means reward hacking.",
        {"kl": "KL"},
        log=True,
    ),
    Group(
        "Entropy",
        "Entropy of the next-token distribution. Near 0 the policy no longer explores.",
        {"entropy": "entropy"},
    ),
    Group(
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
    Group(
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
    Group(
        "Completion endings",
        "Share of completions that end with an EOS token, or are truncated at the limit. Most should end with EOS.",
        {"response_ended": "EOS", "completions/clipped_ratio": "truncated"},
        form="share",
        top=1.0,
    ),
    Group(
        "Reward standard deviation",
        "Standard deviation of the rewards. At 0 all advantages are 0 and there is no learning signal.",
        {"reward_std": "all", "rewards/*/std": "*"},
        detail=True,
    ),
    Group(
        "Prompts with zero reward variance",
        "Share of prompts whose completions all have the same reward. They give no learning signal.",
        {"frac_reward_zero_std": "share"},
        form="share",
    ),
    Group(
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
    Group(
        "Update size",
        "Approximate KL between the updated policy and the one that sampled the completions. It should stay small.",
        {"approx_kl": "KL"},
        detail=True,
    ),
    Group(
        "Loss",
        "The training objective, which the optimizer minimizes.",
        {"loss": "training"},
        log=True,
        aside="The training objective. It says little about the quality of completions: watch the reward instead.",
    ),
    Group(
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
    Group(
        "KL coefficient",
        "Coefficient β of the KL penalty. It grows while the KL is above its target.",
        {"kl_coef": "coefficient"},
        detail=True,
    ),
    Group(
        "Explained variance",
        "Explained variance of the value function: 1 is perfect, 0 is no better than predicting the mean.",
        {"explained_variance": "share"},
        level=0.0,
        detail=True,
    ),
    Group(
        "Advantages",
        "Mean advantage: return minus predicted value. It is near 0 once the value function has learned.",
        {"advantages": "mean"},
        level=0.0,
        detail=True,
    ),
    Group(
        "Unscored completions",
        "Share of completions for which a reward function returned None. Without a reward they are skipped.",
        {"unjudged": "no reward", "rewards/*/skipped": "*"},
        form="share",
        detail=True,
    ),
    Group(
        "GPU",
        "GPU and GPU memory utilization. If the GPU is often idle, increase the batch size.",
        {"gpu/utilization": "utilization", "gpu/memory": "memory"},
        form="share",
        top=1.0,
        detail=True,
    ),
    Group(
        "GPU temperature, °C",
        "Temperature of the GPU. Most GPUs throttle above about 85 °C.",
        {"gpu/temperature": "temperature"},
        detail=True,
    ),
)
"""All known groups, most important first."""
KEY_METRICS = ("rewards/accuracies", "rewards/margins", "reward", "kl", "response_length", "completions/mean_length")
"""Metrics that show the quality of a run besides its loss, most important first."""
_LABELS = {
    "rewards/accuracies": "Training accuracy",
    "rewards/margins": "Training margin",
    "kl": "KL divergence",
    "response_length": "Completion length",
    "completions/mean_length": "Completion length",
}
BETTER_DIRECTION = {"rewards/accuracies": "more", "reward": "more", "loss": "less"}
"""Metrics by which runs are ranked, most important first: whether more or less is better."""
_LEADS = ("reward", "loss")


@dataclass(frozen=True)
class KeyMetric:
    """A metric that shows the quality of a run.

    Attributes:
        name: as logged.
        label: display label.
        form: number format.
    """

    name: str
    label: str
    form: Form


def primary_metric(names: Iterable[str]) -> str:
    """The metric to look at first: the reward if logged, else the loss.

    Where rewards are maximized, the loss says little about a run.
    """
    found = set(names)
    return next((name for name in _LEADS if name in found), _LEADS[-1])


def key_metrics(names: Iterable[str]) -> list[KeyMetric]:
    """The key metrics among those logged, for places with room for a few numbers.

    Args:
        names: as logged, in any order.
    """
    found = {name.removeprefix(EVAL_PREFIX) for name in names}
    return [
        KeyMetric(name, _LABELS.get(name, name.capitalize()), _group_of(name)[0].form)
        for name in KEY_METRICS
        if name in found
    ]


def key_values(values: Mapping[str, float]) -> list[dict[str, Any]]:
    """Key metrics with their last values as JSON: `{"name", "label", "form", "value"}`, evaluation before training.

    The sidebar, `llf runs show` and the monitor show the same list.

    Args:
        values: last values by name, as logged.
    """
    found = []
    for one in key_metrics(values):
        for name, label in ((EVAL_PREFIX + one.name, held_out_label(one.label)), (one.name, one.label)):
            if name in values:
                found.append({"name": name, "label": label, "form": one.form, "value": values[name]})
    return found


def held_out_label(label: str) -> str:
    """Label of a metric computed on validation examples, derived from that of training: `Held-out accuracy`."""
    return f"Held-out {lowercase_label(lowercase_label(label).removeprefix('training '))}"


def lowercase_label(label: str) -> str:
    """Label for use within a sentence: `accuracy`, but `KL divergence`."""
    return label if label[1:2].isupper() else label[:1].lower() + label[1:]


def ranking_metric(names: Iterable[str]) -> KeyMetric:
    """The metric by which runs are ranked: the first of `BETTER_DIRECTION` that any of them has logged, else the loss.

    Args:
        names: metrics logged by any of the runs.
    """
    found = {name.removeprefix(EVAL_PREFIX) for name in names}
    name = next((name for name in BETTER_DIRECTION if name in found), "loss")
    return next((one for one in key_metrics([name])), KeyMetric(name, "Loss", "number"))


def logged_groups(names: Iterable[str]) -> list[LoggedGroup]:
    """The groups of a run's metrics, most important first. Every name is in a group, except those in `UNGROUPED`.

    Monitor, Compare and the summary draw the same charts from it.

    Args:
        names: as logged; evaluation metrics belong to the name without `eval_`.
    """
    found: dict[str, tuple[Group, dict[str, str]]] = {}
    logged = list(dict.fromkeys(name.removeprefix(EVAL_PREFIX) for name in names))
    first = primary_metric(logged)
    for name in logged:
        if name not in UNGROUPED:
            group, label = _group_of(name)
            found.setdefault(group.title, (group, {}))[1][name] = label
    order = [group.title for group in GROUPS]
    ranked = sorted(found.items(), key=lambda one: order.index(one[0]) if one[0] in order else len(order))
    return [
        LoggedGroup(replace(group, help=group.aside, detail=True) if group.aside and first not in lines else group,
              _in_order(group, lines))
        for _, (group, lines) in ranked
    ]  # fmt: skip


def _group_of(name: str) -> tuple[Group, str]:
    """The group of a metric, and its label there."""
    patterns = [(group, pattern, label) for group in GROUPS for pattern, label in group.lines.items()]
    for group, pattern, label in sorted(patterns, key=lambda one: "*" in one[1]):  # exact names before patterns
        match = re.fullmatch(re.escape(pattern).replace(r"\*", "([^/]+)"), name)
        if match is not None:
            return group, label.replace("*", match.group(1)) if match.groups() else label
    family, _, last = name.rpartition("/")
    return Group(family or name, "Values that the run logged under this name.", {}), last


def _in_order(group: Group, lines: Mapping[str, str]) -> dict[str, str]:
    listed = list(group.lines)
    return dict(sorted(lines.items(), key=lambda one: listed.index(one[0]) if one[0] in listed else len(listed)))
