"""What may be wrong with a run: one function a rule, from the vitals to a finding or None.

Thresholds leave room for the noise of small batches: each needs several values in a row, and medians, so that one odd
batch is no finding. They were tried on healthy runs of every size at hand (`tests/core/doctor`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from llf_core.doctor.finding import Finding

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llf_core.doctor.vitals import Vitals

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
GAP = 1.03
"""Times its best value that an evaluation loss has risen to."""
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


def not_finite(vitals: Vitals) -> Finding | None:
    """The loss is NaN or infinite."""
    steps, values = vitals.series.get("loss", (np.empty(0), np.empty(0)))
    broken = np.flatnonzero(~np.isfinite(values))
    if not len(broken):
        return None
    rate = vitals.learning_rate
    return Finding(
        "not_finite",
        f"The loss is {values[broken[0]]} at step {steps[broken[0]]}, and what was trained since is lost.",
        f"Go on from a checkpoint before that step with a lower learning rate than {rate:g}, or train in fp32.",
        config={"learning_rate": _tenth(rate)},
    )


def nothing_learned(vitals: Vitals) -> Finding | None:
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


def nothing_trained(vitals: Vitals) -> Finding | None:
    """No weight changes."""
    steps, norms = vitals.line("grad_norm")
    _, rates = vitals.line("learning_rate")
    if len(norms) >= IN_A_ROW and not norms[-IN_A_ROW:].any() and not nothing_learned(vitals):
        return Finding(
            "nothing_trained",
            f"The gradient is 0 since step {steps[-IN_A_ROW]}: no weight changes.",
            "Look at which layers are trained (finetuning_type, lora_target, freeze_trainable_layers).",
        )
    if len(rates) >= 2 * IN_A_ROW and not rates.any():
        return Finding(
            "nothing_trained",
            f"The learning rate is 0 in all {len(rates)} logged steps: no weight changes.",
            "Set learning_rate, or a shorter warm-up.",
            change={"learning_rate": 1e-4},
        )
    return None


def diverged(vitals: Vitals) -> Finding | None:
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
        f"The loss has risen from {min(first, began):.2f} to {high:.2f}: the learning rate {rate:g} is too high.",
        f"Set it to {_tenth(rate):g}; better go on from a checkpoint before it rose, or start again.",
        change={"learning_rate": _tenth(rate)},
        config={"learning_rate": _tenth(rate)},
    )


def too_slow_a_rate(vitals: Vitals) -> Finding | None:
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
        f"The loss hardly falls ({began:.3f} to {now:.3f} in {steps[-1]} steps), and the learning rate is {rate:g}.",
        f"Set it to {10 * rate:g}.",
        change={"learning_rate": 10 * rate},
        config={"learning_rate": 10 * rate},
    )


def gradient_explodes(vitals: Vitals) -> Finding | None:
    """The gradient's norm is many times what it was."""
    steps, norms = vitals.line("grad_norm")
    if len(norms) < 20 + IN_A_ROW:
        return None
    usual = float(np.median(norms[-50 - IN_A_ROW : -IN_A_ROW]))
    last = norms[-IN_A_ROW:]
    if not usual or (last < SPIKE * usual).any():
        return None
    rate = vitals.learning_rate
    clipped = vitals.config.get("max_grad_norm")
    held = f", clipped to {clipped:g}" if isinstance(clipped, int | float) and clipped else ""
    return Finding(
        "gradient_explodes",
        f"The gradient's norm is {last[-1]:.3g}{held}; its median was {usual:.3g} before step {steps[-IN_A_ROW]}.",
        f"Set the learning rate to {_tenth(rate):g}, and look at the rows of step {steps[-IN_A_ROW]}.",
        change={"learning_rate": _tenth(rate)},
    )


def evaluation_rises(vitals: Vitals) -> Finding | None:
    """The evaluation loss rises while the training loss falls."""
    steps, loss = vitals.line("eval_loss")
    if len(loss) < 4:  # noqa: PLR2004 - two before the best one, two after it
        return None
    best = int(np.argmin(loss))
    if best > len(loss) - IN_A_ROW or (loss[-2:] < GAP * loss[best]).any():
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


def evaluation_leaks(vitals: Vitals) -> Finding | None:
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


def slower(vitals: Vitals) -> Finding | None:
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


def memory_creeps(vitals: Vitals) -> Finding | None:
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
        full = f" At this rate {vitals.memory_limit / 1e9:.1f} GB are full at step {end:,.0f}."
    return Finding(
        "memory_creeps",
        f"Memory grows by {_bytes(a_step)} a step, from {memory[0] / 1e9:.2f} to {memory[-1] / 1e9:.2f} GB.{full}",
        "Ask for a checkpoint, and resume from it when memory is short: a new process begins small.",
    )


def stalled(vitals: Vitals) -> Finding | None:
    """No step has ended for long."""
    usual = vitals.step_seconds
    if vitals.config.get("stage") in DRAWING:  # of its steps those are long that draw answers first
        usual = max(usual, vitals.line("step_seconds")[1].max(initial=0.0))
    if not vitals.running or not usual or vitals.idle < max(STALL * usual, STALL_LEAST):
        return None
    return Finding(
        "stalled",
        f"Step {vitals.step + 1} has not ended for {vitals.idle / 60:.0f} min; a step took {usual:.2g} s.",
        "A long evaluation may be under way; else look at the log, and at the load of this machine. Stop asks for a "
        "checkpoint and ends the process after two minutes.",
    )


def nothing_to_choose(vitals: Vitals) -> Finding | None:
    """The drawn answers to a prompt all earn the same."""
    steps, equal = vitals.line("frac_reward_zero_std")
    if len(equal) < WINDOW or (equal[-WINDOW:] < 1).any():
        return None
    _, rewards = vitals.line("reward")
    return Finding(
        "nothing_to_choose",
        f"All answers to a prompt earn the same reward since step {steps[-WINDOW]} (the mean is {rewards[-1]:.3g}): "
        "nothing is learned from them.",
        "Where that is the best reward, end the run. Else draw more different answers (temperature, num_generations), "
        "take other prompts, or a reward function with more steps between bad and good.",
    )


Rule = Callable[["Vitals"], "Finding | None"]
RULES: tuple[Rule, ...] = (
    not_finite,
    nothing_learned,
    nothing_trained,
    diverged,
    too_slow_a_rate,
    gradient_explodes,
    evaluation_rises,
    evaluation_leaks,
    slower,
    memory_creeps,
    stalled,
    nothing_to_choose,
)
SAYING_NOTHING = frozenset({
    nothing_learned, nothing_trained, diverged, too_slow_a_rate, gradient_explodes, evaluation_rises, slower,
})  # fmt: skip
"""Rules that do not hold where answers are drawn: the loss is near 0 whatever they earn, and so is its gradient where
all earn the same; a step takes as long as the longest answer."""
DRAWING = frozenset({"grpo", "ppo", "rloo"})
"""Stages that draw answers and learn from their rewards."""


def rules_of(stage: object) -> tuple[Rule, ...]:
    """The rules for runs of a stage."""
    return tuple(rule for rule in RULES if stage not in DRAWING or rule not in SAYING_NOTHING)


def _medians(values: NDArray[Any]) -> NDArray[np.float64]:
    """`[BLOCKS]`, of equally long parts."""
    return np.array([float(np.median(part)) for part in np.array_split(values, BLOCKS)])


def _tenth(rate: float) -> float:
    """A tenth, without the dust of binary fractions."""
    return float(f"{rate / 10:.3g}")


def _bytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"  # noqa: PLR2004 - a tenth of a MB
