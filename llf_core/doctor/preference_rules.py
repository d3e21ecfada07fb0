"""What may be wrong with a run that learns from preferences or rewards: one function a rule, as in `rules`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llf_core.config.stage import REFERENCE_FREE
from llf_core.doctor.finding import Finding
from llf_core.runs.formatting import rate as written

if TYPE_CHECKING:
    from llf_core.doctor.run_metrics import RunMetrics

WINDOW = 5
"""Logged values in a row that must agree."""
FALL, FALL_LEAST = 0.2, 10.0
"""Share of its log-probability, and nats, that a chosen answer may lose."""
PARTS = 4
"""Of the steps so far, in each of which it must have fallen further; so often."""
FEW = 24
"""Logged values before which a fall says nothing."""
GUESSING = 0.6
"""Share of the pairs that must be ordered rightly at the end of an epoch, beyond chance."""
EPOCH_LEAST = 10
"""Logged values in half of an epoch."""
RAN, COLLAPSED = 3.0, 0.1
"""Times its early median that a KL runs away from, and below which an entropy has collapsed."""
CUT = 0.5
"""Share of the answers that may be cut at the limit."""


def likelihood_falls(vitals: RunMetrics) -> Finding | None:
    """The chosen answers become less likely together with the rejected ones (arXiv 2410.08847)."""
    beta = vitals.config.get("pref_beta") or 0.1
    _, rewards = vitals.line("rewards/chosen")
    _, worse = vitals.line("rewards/rejected")
    _, whole = vitals.line("logps/chosen")
    if vitals.config.get("pref_loss") in REFERENCE_FREE or len(rewards) < FEW or not len(whole) or not len(worse):
        return None
    levels = np.array([float(np.median(part)) for part in np.array_split(rewards / beta, PARTS)])
    lost, other = -levels[-1], -float(np.median(worse[-len(worse) // PARTS :])) / beta
    length = -float(np.median(whole)) - lost
    if lost < max(FALL_LEAST, FALL * length) or (np.diff(levels) >= 0).any() or other < 0:
        return None
    return Finding(
        "likelihood_falls",
        f"The chosen answers have become less likely too: by {lost:.0f} nats each of {length:.0f}, the rejected ones "
        f"by {other:.0f}. What they lose goes to answers that nobody has chosen.",
        f"Set pref_ftx to 0.2, which holds the chosen answers up; or a lower learning rate than "
        f"{written(vitals.learning_rate)}, or a higher pref_beta than {beta:g}.",
        config={"pref_ftx": 0.2},
    )


def no_preference(vitals: RunMetrics) -> Finding | None:
    """After an epoch the better answer is still guessed."""
    steps, accuracies = vitals.line("rewards/accuracies")
    known, epochs = vitals.line("epoch")
    if not len(known) or epochs[-1] < 1:
        return None
    half = np.interp(steps, known, epochs)
    values = accuracies[(half > 1 / 2) & (half <= 1)]
    if len(values) < EPOCH_LEAST:
        return None
    mean = float(values.mean())
    if mean + 2 * float(values.std()) / len(values) ** 0.5 >= GUESSING:
        return None
    rate = vitals.learning_rate
    return Finding(
        "no_preference",
        f"At the end of the first epoch the better answer is found in {100 * mean:.0f} % of the pairs; guessing finds "
        "50 %.",
        f"Look at some pairs with llf.Inspect(config): is chosen really the better one? Else try a learning rate of "
        f"{written(float(f'{3 * rate:.2g}'))} in place of {written(rate)}, or a higher lora_rank.",
        config={"learning_rate": float(f"{3 * rate:.2g}")} if rate else {},
    )


def kl_runs_away(vitals: RunMetrics, *, high: float, of: str) -> Finding | None:
    """The model leaves its reference ever faster.

    Args:
        vitals: of the run.
        high: nats that a good run does not reach.
        of: what the KL is a mean over: `an answer`, its tokens added up, or `a token`.
    """
    steps, kl = vitals.line("kl")
    if len(kl) < 4 * WINDOW:
        return None
    early, last = float(np.median(kl[: len(kl) // 2])), kl[-WINDOW:]
    if (last < max(high, RAN * early)).any():
        return None
    return Finding(
        "kl_runs_away",
        f"The model runs away from its reference: a KL of {np.median(last):.3g} nats {of} since step "
        f"{steps[-WINDOW]}, {early:.3g} before.",
        "Read the sampled answers: it may have found a trick that the reward falls for. Hold it back with a higher "
        f"coefficient of the KL, or a lower learning rate than {written(vitals.learning_rate)}.",
        change={"learning_rate": float(f"{vitals.learning_rate / 3:.2g}")} if vitals.learning_rate else {},
    )


def same_rewards(vitals: RunMetrics) -> Finding | None:
    """All answers earn the same, so that none is better than another."""
    steps, equal = vitals.line("frac_reward_zero_std")  # TRL's: of the prompts, those whose answers all earn the same
    if not len(equal):
        steps, spread = vitals.line("reward_std")
        equal = spread == 0
    if len(equal) < WINDOW or (equal[-WINDOW:] < 1).any():
        return None
    _, reward = vitals.line("reward")
    earned = f" ({reward[-1]:.3g})" if len(reward) else ""
    return Finding(
        "same_rewards",
        f"All answers to a prompt earn the same{earned} since step {steps[-WINDOW]}: no answer is better than another, "
        "so nothing is learned.",
        "Read the sampled answers. Where all are right, end the run or give harder prompts; where none is, give "
        "easier ones, a reward for a part of the way, or a higher temperature.",
    )


def entropy_collapses(vitals: RunMetrics) -> Finding | None:
    """The model hardly tries anything new."""
    steps, entropy = vitals.line("entropy")
    if len(entropy) < 4 * WINDOW:
        return None
    began = float(np.median(entropy[:WINDOW]))
    if (entropy[-WINDOW:] >= COLLAPSED * began).any():
        return None
    return Finding(
        "entropy_collapses",
        f"The entropy has fallen from {began:.3g} to {entropy[-1]:.3g} nats a token by step {steps[-1]}: the model "
        "writes the same answers again and again, and finds no better ones.",
        "Sample at a higher temperature, hold it to its reference with a higher coefficient of the KL, or take a "
        f"lower learning rate than {written(vitals.learning_rate)}.",
    )


def answers_cut(vitals: RunMetrics) -> Finding | None:
    """Most answers reach the limit of their length."""
    steps, cut = vitals.line("completions/clipped_ratio")
    if not len(cut):
        steps, ended = vitals.line("response_ended")
        cut = 1 - ended
    if len(cut) < WINDOW or (cut[-WINDOW:] <= CUT).any():
        return None
    limit = "max_new_tokens" if vitals.stage == "ppo" else "max_completion_length"
    return Finding(
        "answers_cut",
        f"{100 * float(np.median(cut[-WINDOW:])):.0f} % of the answers are cut at the limit of their length since step "
        f"{steps[-WINDOW]}, and judged unfinished.",
        f"Allow longer answers ({limit}), or have the reward prefer short ones.",
    )
