"""What may be wrong with a run: one function a rule, from the vitals to a finding or None.

Thresholds leave room for the noise of small batches: each needs several values in a row, and medians, so that one odd
batch is no finding. They were tried on healthy runs of every size at hand (`tests/core/doctor`).
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.doctor.finding import Finding
from llf_core.doctor.preference_rules import (
    answers_cut,
    entropy_collapses,
    kl_runs_away,
    likelihood_falls,
    no_preference,
    same_rewards,
)
from llf_core.doctor.rule import LIKELIHOOD, PREFERENCE, SAMPLED, Rule
from llf_core.runs.duplicate_examples import duplicates_warning
from llf_core.runs.formatting import rate as written

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llf_core.doctor.run_metrics import RunMetrics

IN_A_ROW = 3
"""Logged values that must agree where one could be chance."""
WINDOW = 5
"""Logged values that a median is taken of."""
RISE, RISE_LEAST = 1.2, 0.2
"""A loss has diverged where it is so many times, and by so much, above where it began."""
LEAP, LEAP_LEAST = 2.0, 1.5
"""The same against the very first loss alone, which is one batch."""
LOOKED_BACK = 300
"""Logged values among which a rise is looked for: the doctor comes every few seconds."""
NOISE, NOISE_WINDOW = 4.2, 30
"""Median distances of one loss from the next (four standard deviations) that a rise must exceed; of how many."""
FLAT = 0.01
"""Share that a loss must have fallen by halfway."""
LOW_RATES = {"full": 2e-7, "freeze": 2e-7}
LOW_RATE = 2e-6
"""Peaks of the learning rate, by method, below which little is learned; of adapters the second."""
SPIKE = 10.0
"""Times its median that a gradient's norm explodes from."""
GAP, GAP_LEAST, GAP_LEAST_PREFERENCE = 1.03, 0.01, 0.05
"""An evaluation loss has risen where it is so many times, and by so much, above its best value; by how much of answers,
whose loss may fall to 0."""
LEAKED = 0.05
"""Share of the held-out examples that may be trained on too."""
SLOW, SLOW_LEAST = 0.6, 10.0
"""Share of its usual speed below which a run is slow, and seconds for which it must be."""
CREEP, CREEP_LEAST = 0.15, 100e6
"""Share, and bytes, that memory has grown by."""
BLOCKS = 8
"""Parts of a run whose memory must grow one after the other."""
STALL, STALL_LEAST = 20.0, 120.0
"""Times its usual seconds, and seconds, after which a step has stalled."""


def not_finite(vitals: RunMetrics) -> Finding | None:
    """The loss is NaN or infinite."""
    steps, values = vitals.series.get("loss", (np.empty(0), np.empty(0)))
    broken = np.flatnonzero(~np.isfinite(values))
    if not len(broken):
        return None
    rate = vitals.learning_rate
    precision = "bf16 in place of fp16" if vitals.config.get("fp16") else "fp32"
    return Finding(
        "not_finite",
        f"The loss is {values[broken[0]]} at step {steps[broken[0]]}, and what was trained since is lost.",
        f"Go on from a checkpoint before that step with a lower learning rate than {written(rate)}, or train in "
        f"{precision}.",
        config={"learning_rate": _tenth(rate)},
    )


def nothing_learned(vitals: RunMetrics) -> Finding | None:
    """All tokens are masked: there is nothing in the loss."""
    _, trained = vitals.line("trained_tokens")
    _, tokens = vitals.line("tokens")
    steps, loss = vitals.line("loss")
    masked = len(trained) and len(tokens) and not trained[-1] and tokens[-1]
    zero = len(loss) >= IN_A_ROW and not loss[-IN_A_ROW:].any()
    if not masked and not zero:
        return None
    seen = f"none of {tokens[-1]:,.0f} tokens is learned from" if masked else f"the loss is 0 at step {steps[-1]}"
    return Finding(
        "nothing_learned",
        f"There is nothing to learn: {seen}.",
        "Look at what the loss sees with llf.Inspect(config): is the answer's column named, does the template fit, is "
        "cutoff_len long enough?",
    )


def gradient_is_zero(vitals: RunMetrics) -> Finding | None:
    """No weight changes, since nothing says in which direction."""
    steps, norms = vitals.line("grad_norm")
    if len(norms) < IN_A_ROW or norms[-IN_A_ROW:].any() or nothing_learned(vitals):
        return None
    return Finding(
        "nothing_trained",
        f"The gradient is 0 since step {steps[-IN_A_ROW]}: no weight changes.",
        "Look at which layers are trained (finetuning_type, lora_target, freeze_trainable_layers).",
    )


def rate_is_zero(vitals: RunMetrics) -> Finding | None:
    """No weight changes, since the learning rate is 0."""
    _, rates = vitals.line("learning_rate")
    if len(rates) >= 2 * IN_A_ROW and not rates.any():
        return Finding(
            "nothing_trained",
            f"The learning rate is 0 in all {len(rates)} logged steps: no weight changes.",
            "Set learning_rate, or a shorter warm-up.",
            change={"learning_rate": 1e-4},
        )
    return None


def diverged(vitals: RunMetrics) -> Finding | None:
    """The loss has risen above where it began."""
    _, loss = vitals.line("loss")
    # A rate that is far too high has spoiled the model by the second step, so that only the first loss is a low one.
    first, began = loss[:1].sum(), float(np.median(loss[:IN_A_ROW])) if len(loss) else 0.0
    high = 0.0
    for end in range(max(WINDOW + IN_A_ROW, len(loss) - LOOKED_BACK), len(loss) + 1):
        level = float(np.median(loss[end - WINDOW : end]))
        noise = NOISE * float(np.median(np.abs(np.diff(loss[max(0, end - NOISE_WINDOW) : end]))))
        rose = level >= max(began * RISE, began + RISE_LEAST, began + noise)
        leapt = level >= max(first * LEAP, first + LEAP_LEAST, first + noise)
        high = max(high, level) if rose or leapt else high
    if not high:
        return None
    rate = vitals.learning_rate
    return Finding(
        "diverged",
        f"The loss has risen from {min(first, began):.2f} to {high:.2f}: "
        f"the learning rate {written(rate)} is too high.",
        f"Set it to {written(_tenth(rate))}; better go on from a checkpoint before it rose, or start again.",
        change={"learning_rate": _tenth(rate)},
        config={"learning_rate": _tenth(rate)},
    )


def too_slow_a_rate(vitals: RunMetrics) -> Finding | None:
    """The loss hardly falls, and the learning rate is far below what is usual."""
    steps, loss = vitals.line("loss")
    usual = LOW_RATES.get(str(vitals.config.get("finetuning_type")), LOW_RATE)
    if len(loss) < 4 * WINDOW or not vitals.total or steps[-1] < vitals.total / 2:
        return None
    part = max(WINDOW, len(loss) // 5)
    began, now = float(np.median(loss[:part])), float(np.median(loss[-part:]))
    if not 0 < vitals.learning_rate < usual or now < began * (1 - FLAT):
        return None
    rate = vitals.learning_rate
    return Finding(
        "too_slow_a_rate",
        f"The loss hardly falls ({began:.3f} to {now:.3f} in {steps[-1]} steps), "
        f"and the learning rate is {written(rate)}.",
        f"Set it to {written(10 * rate)}.",
        change={"learning_rate": 10 * rate},
        config={"learning_rate": 10 * rate},
    )


def gradient_explodes(vitals: RunMetrics, *, fades: bool = False) -> Finding | None:
    """The gradient's norm is many times what it was.

    Args:
        vitals: of the run.
        fades: the norm falls towards 0 where all is well, and a hard batch then stands out: it must exceed its
            beginnings too.
    """
    steps, norms = vitals.line("grad_norm")
    if len(norms) < 20 + IN_A_ROW:
        return None
    usual = float(np.median(norms[-50 - IN_A_ROW : -IN_A_ROW]))
    usual = max(usual, float(np.median(norms[:20]))) if fades else usual
    last = norms[-IN_A_ROW:]
    if not usual or (last < SPIKE * usual).any():
        return None
    rate = vitals.learning_rate
    clipped = vitals.config.get("max_grad_norm")
    held = f", clipped to {clipped:g}" if isinstance(clipped, int | float) and clipped else ""
    return Finding(
        "gradient_explodes",
        f"The gradient's norm is {last[-1]:.3g}{held}; its median was {usual:.3g} before step {steps[-IN_A_ROW]}.",
        f"Set the learning rate to {written(_tenth(rate))}, and look at the rows of step {steps[-IN_A_ROW]}.",
        change={"learning_rate": _tenth(rate)},
    )


def evaluation_rises(vitals: RunMetrics, *, least: float = GAP_LEAST) -> Finding | None:
    """The evaluation loss rises while the training loss falls.

    Args:
        vitals: of the run.
        least: what it must have risen by at least: near 0 a share is noise.
    """
    steps, loss = vitals.line("eval_loss")
    if len(loss) < 4:  # noqa: PLR2004 - two before the best one, two after it
        return None
    best = int(np.argmin(loss))
    if best > len(loss) - IN_A_ROW or (loss[-2:] < max(GAP * loss[best], loss[best] + least)).any():
        return None
    left = max(1, round(0.05 * vitals.total))
    return Finding(
        "evaluation_rises",
        f"The evaluation loss has risen since step {steps[best]}, from {loss[best]:.3f} to {loss[-1]:.3f}: the model "
        "learns the training set by heart.",
        f"End the run; checkpoint-{steps[best]}, where it is kept, is the best. Next time train less long, or with "
        "early_stopping_steps.",
        change={"max_steps": vitals.step + left},
        config={"early_stopping_steps": IN_A_ROW},
    )


def evaluation_leaks(vitals: RunMetrics) -> Finding | None:
    """Held-out examples are trained on too."""
    held, leaked = vitals.data.get("eval_examples") or 0, vitals.data.get("leaked") or 0
    if not held or leaked <= LEAKED * held:
        return None
    return Finding(
        "evaluation_leaks",
        f"{leaked:,} of the {held:,} examples to evaluate on are trained on too: the evaluation loss says little about "
        "new text.",
        "Hold out others: take another eval_dataset, or val_size with drop_duplicates.",
        config={"drop_duplicates": True},
    )


def copies(vitals: RunMetrics) -> Finding | None:
    """Many examples are trained on several times an epoch."""
    told = duplicates_warning(vitals.data.get("copies") or 0, vitals.data.get("examples") or 0)
    if told is None:
        return None
    return Finding(
        "copies",
        f"{told} The training loss may fall while new text is predicted no better.",
        "Next time set drop_duplicates, or look at them with llf inspect.",
        config={"drop_duplicates": True},
    )


def slower(vitals: RunMetrics) -> Finding | None:
    """Fewer tokens a second than before."""
    steps, speed = vitals.line("tokens_per_second")
    apart = vitals.step_seconds * np.ptp(steps) / max(len(steps) - 1, 1) if len(steps) else 0.0
    window = max(WINDOW, math.ceil(SLOW_LEAST / apart)) if apart else WINDOW
    if len(speed) < 4 * window:
        return None
    last = speed[-window:]
    usual = float(np.median(speed[WINDOW:-window]))
    if (last > SLOW * usual).any():
        return None
    return Finding(
        "slower",
        f"The run is slower: {np.median(last):,.0f} tokens a second since step {steps[-window]}, {usual:,.0f} before.",
        "Look for other work on this machine, a processor that throttles, or memory that is swapped.",
    )


def memory_creeps(vitals: RunMetrics) -> Finding | None:
    """Memory grows step by step, and does not level off."""
    steps, memory = vitals.line("memory")
    skipped = len(memory) // 5  # caches fill at first
    steps, memory = steps[skipped:], memory[skipped:]
    if len(memory) < 3 * BLOCKS:
        return None
    levels = _medians(memory)
    growth, later = levels[-1] - levels[0], levels[-1] - levels[BLOCKS // 2]
    if growth < max(CREEP * levels[0], CREEP_LEAST) or later < growth / 3 or (np.diff(levels) <= 0).any():
        return None
    between = _medians(steps)
    a_step = growth / (between[-1] - between[0])
    full = ""
    if vitals.memory_limit > memory[-1]:
        end = steps[-1] + (vitals.memory_limit - memory[-1]) / a_step
        if 0 < vitals.total < end:
            return None  # it suffices to the last step
        full = f" At this rate {vitals.memory_limit / 1e9:.1f} GB are full at step {end:,.0f}."
    return Finding(
        "memory_creeps",
        f"Memory grows by {_bytes(a_step)} a step, from {memory[0] / 1e9:.2f} to {memory[-1] / 1e9:.2f} GB.{full}",
        "Ask for a checkpoint, and resume from it when memory is short: a new process begins small.",
    )


def stalled(vitals: RunMetrics) -> Finding | None:
    """No step has ended for long."""
    usual = vitals.step_seconds
    if vitals.stage in SAMPLED:  # of its steps those are long that draw answers first
        usual = max(usual, vitals.line("step_seconds")[1].max(initial=0.0))
    if not vitals.running or not usual or vitals.idle < max(STALL * usual, STALL_LEAST):
        return None
    return Finding(
        "stalled",
        f"Step {vitals.step + 1} has not ended for {vitals.idle / 60:.0f} min; a step took {usual:.2g} s.",
        "A long evaluation may be under way; else look at the log, and at the load of this machine. Stop asks for a "
        "checkpoint and ends the process after two minutes.",
        until=vitals.step + 1,
    )


RULES: tuple[Rule, ...] = (
    Rule("not_finite", not_finite),
    Rule("nothing_learned", nothing_learned, LIKELIHOOD),
    Rule("nothing_trained", gradient_is_zero, LIKELIHOOD),
    Rule("nothing_trained", rate_is_zero),
    Rule("diverged", diverged, LIKELIHOOD + PREFERENCE),
    Rule("too_slow_a_rate", too_slow_a_rate, LIKELIHOOD + PREFERENCE),
    Rule("gradient_explodes", gradient_explodes, LIKELIHOOD),
    Rule("gradient_explodes", partial(gradient_explodes, fades=True), PREFERENCE),
    Rule("evaluation_rises", evaluation_rises, LIKELIHOOD),
    Rule("evaluation_rises", partial(evaluation_rises, least=GAP_LEAST_PREFERENCE), PREFERENCE),
    Rule("evaluation_leaks", evaluation_leaks),
    Rule("copies", copies),
    Rule("slower", slower, LIKELIHOOD + PREFERENCE),
    Rule("memory_creeps", memory_creeps),
    Rule("stalled", stalled),
    Rule("likelihood_falls", likelihood_falls, ("dpo",)),
    Rule("no_preference", no_preference, ("dpo", "rm")),
    Rule("kl_runs_away", partial(kl_runs_away, high=30.0, of="an answer"), ("ppo",)),
    Rule("kl_runs_away", partial(kl_runs_away, high=1.0, of="a token"), ("grpo", "rloo")),
    Rule("same_rewards", same_rewards, SAMPLED),
    Rule("entropy_collapses", entropy_collapses, SAMPLED),
    Rule("answers_cut", answers_cut, SAMPLED),
)


def _medians(values: NDArray[Any]) -> NDArray[np.float64]:
    """`[BLOCKS]`, of equally long parts."""
    return np.array([float(np.median(part)) for part in np.array_split(values, BLOCKS)])


def _tenth(rate: float) -> float:
    """A tenth, without the dust of binary fractions."""
    return float(f"{rate / 10:.3g}")


def _bytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"  # noqa: PLR2004 - a tenth of a MB
