"""Problems of runs that learn from preferences or rewards: one function per rule, as in `loss_rules`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llf_core.config.declarations.stages.dpo import REFERENCE_FREE
from llf_core.doctor.rule import Finding
from llf_core.runs.formatting import rate as written

if TYPE_CHECKING:
    from llf_core.doctor.rule import RunMetrics

WINDOW = 5
"""Number of consecutive logged values that must agree."""
FALL, FALL_LEAST = 0.2, 10.0
"""Maximum decrease of the chosen log-probability, relative and in nats."""
PARTS = 4
"""Number of parts of the run in each of which it must have decreased further."""
FEW = 24
"""Minimum number of logged values for this rule."""
GUESSING = 0.6
"""Minimum accuracy at the end of an epoch that differs from chance."""
EPOCH_LEAST = 10
"""Minimum number of logged values in half an epoch."""
RAN, COLLAPSED = 3.0, 0.1
"""Multiple of its early median above which the KL is too high, and below which the entropy has collapsed."""
CUT = 0.5
"""Maximum share of truncated completions."""


def chosen_likelihood_falls(metrics: RunMetrics) -> Finding | None:
    """Find chosen responses that become less likely too (likelihood displacement, arXiv 2410.08847).

    The loss falls all the same. The median log-probability must fall from each of `PARTS` parts of the run to the next,
    in total by the share `FALL` and by `FALL_LEAST` nats, and the rejected responses must not have become likelier.
    Losses without a reference model are not checked: their rewards are not differences from the start.
    """
    given = metrics.config.get("pref_beta")
    beta = given if isinstance(given, int | float) and given > 0 else 0.1  # a file of a run may hold anything
    _, rewards = metrics.line("rewards/chosen")
    _, worse = metrics.line("rewards/rejected")
    _, logps = metrics.line("logps/chosen")
    if metrics.config.get("pref_loss") in REFERENCE_FREE or len(rewards) < FEW or not len(logps) or not len(worse):
        return None
    levels = np.array([float(np.median(part)) for part in np.array_split(rewards / beta, PARTS)])
    chosen_decrease, rejected_decrease = -levels[-1], -float(np.median(worse[-len(worse) // PARTS :])) / beta
    length = -float(np.median(logps)) - chosen_decrease
    if chosen_decrease < max(FALL_LEAST, FALL * length) or (np.diff(levels) >= 0).any() or rejected_decrease < 0:
        return None
    return Finding(
        "likelihood_falls",
        f"The chosen responses have become less likely too: by {chosen_decrease:.0f} of {length:.0f} nats "
        f"each, the rejected ones by {rejected_decrease:.0f}. Probability moves to responses outside the data set.",
        f"Set pref_ftx to 0.2, which adds an SFT loss on the chosen responses; or use {_below(metrics.learning_rate)}, "
        f"or a higher pref_beta than {beta:g}.",
        config={"pref_ftx": 0.2},
    )


def no_preference(metrics: RunMetrics) -> Finding | None:
    """Find an accuracy that is still at chance level (50 %) in the second half of the first epoch.

    Its mean plus two standard errors must be below `GUESSING`, over at least `EPOCH_LEAST` logged values.
    """
    steps, accuracies = metrics.line("rewards/accuracies")
    known, epochs = metrics.line("epoch")
    if not len(known) or epochs[-1] < 1:
        return None
    half = np.interp(steps, known, epochs)
    values = accuracies[(half > 1 / 2) & (half <= 1)]
    if len(values) < EPOCH_LEAST:
        return None
    mean = float(values.mean())
    if mean + 2 * float(values.std()) / len(values) ** 0.5 >= GUESSING:
        return None
    rate = metrics.learning_rate
    higher = f"a learning rate of {written(float(f'{3 * rate:.2g}'))} instead of {written(rate)}"
    return Finding(
        "no_preference",
        f"At the end of the first epoch the accuracy is {100 * mean:.0f} %; random guessing has 50 %.",
        "Check some pairs with llf.Inspect(config): is the chosen response really better? If so, try "
        f"{higher if rate else 'a higher learning rate'}, or a higher lora_rank.",
        config={"learning_rate": float(f"{3 * rate:.2g}")} if rate else {},
    )


def kl_too_high(metrics: RunMetrics, *, high: float, of: str) -> Finding | None:
    """Find a KL divergence from the reference model that grows quickly, the sign of reward hacking.

    All of the last `WINDOW` values must be above `high` and above `RAN` times the median of the first half.

    Args:
        high: nats that a good run does not reach.
        of: for the message: `a completion` (KL summed over its tokens), or `a token`.
    """
    steps, kl = metrics.line("kl")
    if len(kl) < 4 * WINDOW:
        return None
    early, last = float(np.median(kl[: len(kl) // 2])), kl[-WINDOW:]
    if (last < max(high, RAN * early)).any():
        return None
    return Finding(
        "kl_runs_away",
        f"The policy diverges from the reference model: a KL of {np.median(last):.3g} nats {of} since step "
        f"{steps[-WINDOW]}, {early:.3g} before.",
        "Read the sampled completions: the model may be exploiting the reward. Use a higher "
        f"KL coefficient, or {_below(metrics.learning_rate)}.",
        change={"learning_rate": float(f"{metrics.learning_rate / 3:.2g}")} if metrics.learning_rate else {},
    )


def no_reward_variance(metrics: RunMetrics) -> Finding | None:
    """Find equal rewards of all completions of each prompt, over the last `WINDOW` logged values.

    Advantages are differences from the group's mean (GRPO, arXiv 2402.03300, section 4.1.2), so all are 0.
    """
    steps, equal = metrics.line("frac_reward_zero_std")  # TRL: share of prompts with equal rewards
    if not len(equal):
        steps, spread = metrics.line("reward_std")
        equal = spread == 0
    if len(equal) < WINDOW or (equal[-WINDOW:] < 1).any():
        return None
    _, reward = metrics.line("reward")
    value = f" ({reward[-1]:.3g})" if len(reward) else ""
    return Finding(
        "same_rewards",
        f"All completions of a prompt have had the same reward{value} since step {steps[-WINDOW]}, so all advantages "
        "are 0 and nothing is learned.",
        "Read the sampled completions. If all are correct, stop the run or use harder prompts; if none is, use "
        "easier prompts, a partial reward, or a higher temperature.",
    )


def entropy_collapses(metrics: RunMetrics) -> Finding | None:
    """Find an entropy below `COLLAPSED` times the median of the first `WINDOW` values, in all of the last `WINDOW`."""
    steps, entropy = metrics.line("entropy")
    if len(entropy) < 4 * WINDOW:
        return None
    began = float(np.median(entropy[:WINDOW]))
    if (entropy[-WINDOW:] >= COLLAPSED * began).any():
        return None
    return Finding(
        "entropy_collapses",
        f"The entropy has fallen from {began:.3g} to {entropy[-1]:.3g} nats a token by step {steps[-1]}: the model "
        "repeats the same completions and no longer explores.",
        f"Use a higher temperature, a higher KL coefficient, or {_below(metrics.learning_rate)}.",
    )


def completions_truncated(metrics: RunMetrics) -> Finding | None:
    """Find a share of truncated completions above `CUT` in all of the last `WINDOW` finite values."""
    steps, cut = metrics.line("completions/clipped_ratio")
    if not len(cut):
        steps, ended = metrics.line("response_ended")
        cut = 1 - ended
    if len(cut) < WINDOW or (cut[-WINDOW:] <= CUT).any():
        return None
    limit = metrics.stage.completion_limit if metrics.stage is not None else "max_completion_length"
    return Finding(
        "answers_cut",
        f"{100 * float(np.median(cut[-WINDOW:])):.0f} % of the completions have been truncated at the length limit "
        f"since step {steps[-WINDOW]}.",
        f"Allow longer completions (raise {limit}), or reward short ones.",
    )


def _below(rate: float) -> str:
    return f"a learning rate below {written(rate)}" if rate else "a lower learning rate"
