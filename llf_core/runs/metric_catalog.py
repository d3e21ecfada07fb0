"""What the numbers of a run mean: in which group each stands, how it is written, and which of them count.

A view shows the groups of what a run has logged, whatever its stage is called. A stage of another package may log any
name: one that no group knows has a group of its own, with those that it shares the first part of its name with.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Form = Literal["number", "share", "count"]

HELD_OUT = "eval_"
"""Stands before the name of what was measured on held-out examples."""
ELSEWHERE = frozenset(
    {
        "learning_rate", "grad_norm", "tokens_per_second", "memory",  # charts of their own, for every run
        "epoch", "tokens", "trained_tokens", "step_seconds", "num_tokens", "step_time",  # counters and clocks
    }
)  # fmt: skip
"""Names that belong to no group."""


@dataclass(frozen=True)
class Group:
    """Numbers that are read together.

    Attributes:
        title: its heading.
        help: one sentence: what it is, and what a good run does.
        lines: name -> label, in their order; a `*` in a name stands for any word, and in the label for that word.
        form: how its numbers are written; `share` is a number from 0 to 1 that is written in per cent.
        log: whether a logarithmic scale makes sense.
        level: a height to compare with, which a chart marks.
        level_label: what that height is.
        top: the highest value that there can be, where a chart reaches up to it whatever was logged.
        aside: the sentence in place of `help` where another number is the one to look at first.
        detail: whether it is looked at only where something is odd; so is one with a sentence `aside` that holds.
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
class Shown:
    """A group as far as a run has logged it.

    Attributes:
        group: which.
        lines: name -> label of what was logged, without what stands before held-out names.
    """

    group: Group
    lines: Mapping[str, str]


GROUPS: tuple[Group, ...] = (
    Group("Reward", "What an answer earns on average: it should rise, then level off.", {"reward": "reward"}),
    Group(
        "Reward by function",
        "What each reward function gives on average. One that rises alone is being exploited.",
        {"rewards/*/mean": "*", "rewards/*": "*"},
    ),
    Group(
        "Rewards",
        "How the model rates the better and the worse answer. The margin between them should grow.",
        {"rewards/chosen": "chosen", "rewards/rejected": "rejected", "rewards/margins": "margin"},
        level=0.0,
    ),
    Group(
        "Accuracy",
        "How often the better answer is rated higher. Trust the held-out pairs: they are new to the model.",
        {"rewards/accuracies": "training"},
        form="share",
        level=0.5,
        level_label="guessing",
        top=1.0,
    ),
    Group(
        "Log-probabilities",
        "How likely the model finds each answer: nearer to 0 is likelier. Chosen should not fall as rejected does.",
        {"logps/chosen": "chosen", "logps/rejected": "rejected"},
    ),
    Group(
        "KL divergence",
        "How far the model has moved from its reference. A slow rise is learning, a leap is a trick it has found.",
        {"kl": "KL"},
        log=True,
    ),
    Group(
        "Entropy",
        "How open the choice of each next token is. Near 0 the model has stopped trying anything new.",
        {"entropy": "entropy"},
    ),
    Group(
        "Answer length, tokens",
        "How long answers are. Growth without reward, or a flat line at the limit, is wasted.",
        {
            "response_length": "mean",
            "completions/mean_length": "mean",
            "completions/min_length": "shortest",
            "completions/max_length": "longest",
        },
        form="count",
    ),
    Group(
        "Length of ended answers, tokens",
        "How long the answers are that end by themselves; 0 where none does.",
        {
            "completions/mean_terminated_length": "mean",
            "completions/min_terminated_length": "shortest",
            "completions/max_terminated_length": "longest",
        },
        form="count",
        detail=True,
    ),
    Group(
        "How answers end",
        "An answer that is cut at the limit is judged unfinished: most should end by themselves.",
        {"response_ended": "by itself", "completions/clipped_ratio": "cut"},
        form="share",
        top=1.0,
    ),
    Group(
        "Spread of rewards",
        "How much rewards differ from answer to answer. At 0 no answer is better, and nothing is learned.",
        {"reward_std": "all", "rewards/*/std": "*"},
        detail=True,
    ),
    Group(
        "Prompts without a difference",
        "Share of the prompts whose answers all earn the same: nothing is learned from these.",
        {"frac_reward_zero_std": "share"},
        form="share",
    ),
    Group(
        "Clipped",
        "Share of tokens that were held back from moving further. Some per cent are usual.",
        {
            "clip_fraction": "policy",
            "value_clip_fraction": "value",
            "clip_ratio/region_mean": "all",
            "clip_ratio/low_mean": "down",
            "clip_ratio/high_mean": "up",
            "clip_ratio/low_min": "down, least",
            "clip_ratio/high_max": "up, most",
        },
        form="share",
        detail=True,
    ),
    Group(
        "Size of an update",
        "How far one round of updates moves the model from what wrote the answers. It should stay small.",
        {"approx_kl": "KL"},
        detail=True,
    ),
    Group(
        "Loss",
        "What training makes smaller.",
        {"loss": "training"},
        log=True,
        aside="What training makes smaller. It says little of how good answers are: look at the reward.",
    ),
    Group(
        "Parts of the loss",
        "What the loss is the sum of, before each part's weight.",
        {
            "policy_loss": "policy",
            "value_loss": "value",
            "sft_loss": "SFT",
            "odds_ratio_loss": "odds ratio",
            "kd_loss": "distillation",
            "aux_loss": "balance",
        },
        detail=True,
    ),
    Group(
        "KL coefficient",
        "What leaving the reference costs. It grows as long as the KL is above its target.",
        {"kl_coef": "coefficient"},
        detail=True,
    ),
    Group(
        "Explained variance",
        "How well the value function foresees what answers earn: 1 is exactly, 0 is no better than a mean.",
        {"explained_variance": "share"},
        level=0.0,
        detail=True,
    ),
    Group(
        "Advantages",
        "How much better answers were than expected. It is near 0 once the value function has learned.",
        {"advantages": "mean"},
        level=0.0,
        detail=True,
    ),
    Group(
        "Unjudged answers",
        "Share of the answers that a reward function does not apply to. Where none does, nothing is learned.",
        {"unjudged": "by none", "rewards/*/skipped": "not by *"},
        form="share",
        detail=True,
    ),
    Group(
        "GPU",
        "How busy the GPU is, and how full its memory. Where it is often idle, larger batches use it better.",
        {"gpu/utilization": "utilization", "gpu/memory": "memory"},
        form="share",
        top=1.0,
        detail=True,
    ),
    Group(
        "GPU temperature, °C",
        "How hot the GPU is. Beyond about 85 °C most slow down.",
        {"gpu/temperature": "temperature"},
        detail=True,
    ),
)
"""All groups that are known, the one to look at first at the top."""
COUNTED = ("rewards/accuracies", "rewards/margins", "reward", "kl", "response_length", "completions/mean_length")
"""Names that tell how a run does where its loss alone does not, the most telling first."""
_LABELS = {
    "rewards/accuracies": "Training accuracy",
    "rewards/margins": "Training margin",
    "kl": "KL divergence",
    "response_length": "Answer length",
    "completions/mean_length": "Answer length",
}
BETTER = {"rewards/accuracies": "more", "reward": "more", "loss": "less"}
"""By which runs are told apart, the most telling first: whether more of it is better, or less."""
_LEADS = ("reward", "loss")


@dataclass(frozen=True)
class Counted:
    """A number that counts.

    Attributes:
        name: as it is logged.
        label: for people.
        form: how it is written.
    """

    name: str
    label: str
    form: Form


def lead(names: Iterable[str]) -> str:
    """The number to look at first: the reward where there is one, else the loss."""
    found = set(names)
    return next((name for name in _LEADS if name in found), _LEADS[-1])


def counted(names: Iterable[str]) -> list[Counted]:
    """What counts of what was logged.

    Args:
        names: as logged, in any order.
    """
    found = {name.removeprefix(HELD_OUT) for name in names}
    return [
        Counted(name, _LABELS.get(name, name.capitalize()), _home(name)[0].form) for name in COUNTED if name in found
    ]


def told(values: Mapping[str, float]) -> list[dict[str, Any]]:
    """What counts of the last values, as JSON: `{"name", "label", "form", "value"}`, held out before the training.

    Args:
        values: by name, as logged.
    """
    found = []
    for one in counted(values):
        for name, label in ((HELD_OUT + one.name, held_out_label(one.label)), (one.name, one.label)):
            if name in values:
                found.append({"name": name, "label": label, "form": one.form, "value": values[name]})
    return found


def held_out_label(label: str) -> str:
    """A label of a number that was measured on held-out examples: `Held-out accuracy`."""
    return f"Held-out {within(within(label).removeprefix('training '))}"


def within(label: str) -> str:
    """A label in the middle of a sentence: `accuracy`, but `KL divergence`."""
    return label if label[1:2].isupper() else label[:1].lower() + label[1:]


def decides(names: Iterable[str]) -> Counted:
    """The number by which runs are told apart.

    Args:
        names: what was logged in any of them.
    """
    found = {name.removeprefix(HELD_OUT) for name in names}
    name = next((name for name in BETTER if name in found), "loss")
    return next((one for one in counted([name])), Counted(name, "Loss", "number"))


def shown(names: Iterable[str]) -> list[Shown]:
    """The groups that a run's numbers stand in; every name is in one, but those of `ELSEWHERE`.

    Args:
        names: as logged; what is held out belongs to the name without `eval_`.
    """
    found: dict[str, tuple[Group, dict[str, str]]] = {}
    logged = list(dict.fromkeys(name.removeprefix(HELD_OUT) for name in names))
    first = lead(logged)
    for name in logged:
        if name not in ELSEWHERE:
            group, label = _home(name)
            found.setdefault(group.title, (group, {}))[1][name] = label
    order = [group.title for group in GROUPS]
    ranked = sorted(found.items(), key=lambda one: order.index(one[0]) if one[0] in order else len(order))
    return [
        Shown(replace(group, help=group.aside, detail=True) if group.aside and first not in lines else group,
              _in_order(group, lines))
        for _, (group, lines) in ranked
    ]  # fmt: skip


def _home(name: str) -> tuple[Group, str]:
    """The group of a name, and its label there."""
    patterns = [(group, pattern, label) for group in GROUPS for pattern, label in group.lines.items()]
    for group, pattern, label in sorted(patterns, key=lambda one: "*" in one[1]):  # whole names before patterns
        match = re.fullmatch(re.escape(pattern).replace(r"\*", "([^/]+)"), name)
        if match is not None:
            return group, label.replace("*", match.group(1)) if match.groups() else label
    family, _, last = name.rpartition("/")
    return Group(family or name, "A number that the run has logged by this name.", {}), last


def _in_order(group: Group, lines: Mapping[str, str]) -> dict[str, str]:
    listed = list(group.lines)
    return dict(sorted(lines.items(), key=lambda one: listed.index(one[0]) if one[0] in listed else len(listed)))
