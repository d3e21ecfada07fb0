"""The charts of a run, one row each. To add a chart, add a row to `CHARTS`.

All views draw the rows whose metrics a run has logged, whatever its stage. `llf_widgets.plotting` and
`llf_widgets.monitor.chart_grid` compute axes and positions. Lists, logs and summaries use a row's `form` too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

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
