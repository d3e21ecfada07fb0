"""Problems of a run's loss, speed, preferences and rewards: one function per rule, from metrics to a finding or None.

Each rule needs several consecutive values or medians, against the noise of small batches. Thresholds were tested on
healthy runs (`tests/core/doctor`).
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from llf_core.config.declarations.stages.dpo import REFERENCE_FREE
from llf_core.doctor.rule import Finding, Rule, compares_pairs, ranks_pairs, samples_groups, samples_one, with_loss
from llf_core.runs.findings import duplicates_warning
from llf_core.runs.formatting import rate as written

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llf_core.doctor.rule import RunMetrics


CONSECUTIVE = 3
"""Number of consecutive logged values that must agree."""

WINDOW = 5
"""Number of logged values in a median."""

RISE, RISE_LEAST = 1.2, 0.2
"""A loss has diverged if it is this factor, and this amount, above its start."""

LEAP, LEAP_LEAST = 2.0, 1.5
"""The same relative to the very first loss only, which is one batch."""

BROKEN = 3.0
"""Multiple of the first loss above which the model is spoiled, whatever the noise."""

LOOKBACK = 300
"""Number of recent logged values searched for a rise; the doctor runs every few seconds."""

NOISE, NOISE_WINDOW, NOISE_LEAST = 4.2, 30, 15
"""A rise must exceed this multiple of the median difference of consecutive losses before it; most and least losses.

4.2 is four standard deviations: the median of |x - y| is 0.954 of them for normal x and y. A run that rises earlier has
no noise to compare with, so the first losses of the rise count too.
"""

FLAT = 0.01
"""Minimum relative decrease of the loss by half of the run."""
LOW_RATES = {"full": 2e-7, "freeze": 2e-7}

LOW_RATE = 2e-6
"""Peak learning rate below which little is learned; `LOW_RATES` by method, this one for adapters."""

SPIKE = 10.0
"""Multiple of its median above which the gradient norm has exploded."""

GAP, GAP_LEAST, GAP_LEAST_PREFERENCE = 1.03, 0.01, 0.05
"""An evaluation loss has risen if it is this factor, and this amount (preference losses: the last), above its best."""

FORGOTTEN, FORGOTTEN_LEAST = 1.1, 0.1
"""A probe loss has risen if it is this factor, and this amount (nats per token), above its start.

Usual learning rates and runs with general data stay below, see `tests/core/training/test_forgetting.py`.
"""

LEAKED = 0.05
"""Maximum share of validation examples that are also training examples."""

SLOW, SLOW_LEAST = 0.6, 10.0
"""A run is slow below this share of its usual speed, for at least this many seconds."""

CREEP, CREEP_LEAST = 0.15, 100e6
"""Share and bytes by which memory has grown."""

BLOCKS = 8
"""Number of parts of a run over which memory must grow monotonically."""

WAITS, WAITING = 10, 0.2
"""Number of logged values in which the same process is the slowest, and the share of a step that the others wait."""

STALL, STALL_LEAST = 20.0, 120.0
"""A step has stalled after this multiple of its usual duration, and at least this many seconds."""


def not_finite(metrics: RunMetrics) -> Finding | None:
    """Find the first NaN or infinite loss: a run can go on only from a checkpoint before it."""
    steps, values = metrics.series.get("loss", (np.empty(0), np.empty(0)))
    broken = np.flatnonzero(~np.isfinite(values))
    if not len(broken):
        return None
    rate = metrics.learning_rate
    precision = "bf16 in place of fp16" if metrics.config.get("fp16") else "fp32"
    return Finding(
        "not_finite",
        f"The loss is {values[broken[0]]} at step {steps[broken[0]]}. Training after this step is unusable.",
        f"Go on from a checkpoint before that step with {_lower_than(rate)}, or train in {precision}.",
        config=_lowered(rate),
        outcome=f"The loss was {values[broken[0]]} at step {steps[broken[0]]}: the result is unusable.",
    )


def nothing_learned(metrics: RunMetrics) -> Finding | None:
    """Find a run without tokens in its loss, because a template or column does not match the data set.

    The last step trained on no token, or the loss is exactly 0 in the last `CONSECUTIVE` logged values.
    """
    _, trained = metrics.line("trained_tokens")
    _, tokens = metrics.line("tokens")
    steps, loss = metrics.likelihood()
    masked = len(trained) and len(tokens) and not trained[-1] and tokens[-1]
    zero = len(loss) >= CONSECUTIVE and not loss[-CONSECUTIVE:].any()
    if not masked and not zero:
        return None
    seen = f"none of {tokens[-1]:,.0f} tokens is in the loss" if masked else f"the loss is 0 at step {steps[-1]}"
    return Finding(
        "nothing_learned",
        f"The model learns nothing: {seen}.",
        "Check which tokens are in the loss with llf.Inspect(config): is the response column named, does the "
        "template match, is cutoff_len long enough?",
    )


def gradient_is_zero(metrics: RunMetrics) -> Finding | None:
    """Find a gradient norm of 0 in the last `CONSECUTIVE` values, with tokens in the loss (else `nothing_learned`)."""
    steps, norms = metrics.line("grad_norm")
    if len(norms) < CONSECUTIVE or norms[-CONSECUTIVE:].any() or nothing_learned(metrics):
        return None
    return Finding(
        "nothing_trained",
        f"The gradient is 0 since step {steps[-CONSECUTIVE]}: no weight changes.",
        "Check which layers are trainable (finetuning_type, lora_target, freeze_trainable_layers).",
    )


def learning_rate_is_zero(metrics: RunMetrics) -> Finding | None:
    """Find a learning rate of 0 in all finite values, at least `2 * CONSECUTIVE`."""
    _, rates = metrics.line("learning_rate")
    if len(rates) >= 2 * CONSECUTIVE and not rates.any():
        return Finding(
            "nothing_trained",
            f"The learning rate is 0 in all {len(rates)} logged steps: no weight changes.",
            "Set learning_rate, or shorten the warmup.",
            change={"learning_rate": 1e-4},
        )
    return None


def diverged(metrics: RunMetrics, *, known_start: bool = False) -> Finding | None:
    """Find a loss that has risen above its start, the sign of a learning rate that is too high.

    A median of `WINDOW` of the last `LOOKBACK` values must exceed the start, the median of the first `CONSECUTIVE`, by
    `RISE` and `RISE_LEAST` and by the noise before the rise (`NOISE`). Compared with the first loss alone, one batch,
    the limits are `LEAP` and `LEAP_LEAST`. A loss that stays above `BROKEN` times the first, and `LEAP_LEAST` above it,
    for `CONSECUTIVE` values, and for as many as came before, has diverged whatever the noise.

    Args:
        known_start: whether the first loss hardly depends on its batch (ln 2 of DPO): a median above `BROKEN` times it
            then suffices.
    """
    _, loss = metrics.likelihood()
    ends = range(max(CONSECUTIVE + 1, len(loss) - LOOKBACK), len(loss) + 1)
    levels = {
        end: float(np.median(loss[max(0, end - WINDOW) : end])) for end in ends if _has_risen(loss[:end], known_start)
    }
    if not levels:
        return None
    # A rate that is far too high has spoiled the model by the second step, so that only the first loss is a low one.
    first, last, rate = float(loss[0]), float(loss[-1]), metrics.learning_rate
    start, now = min(first, float(np.median(loss[:CONSECUTIVE]))), min(last, float(np.median(loss[-WINDOW:])))
    times = f", {last / first:.1f} times the first one" if first > 0 else ", above the first one"
    return Finding(
        "diverged",
        f"The loss has risen from {start:.2f} to {max(levels.values()):.2f}: "
        f"the learning rate{f' {written(rate)}' if rate else ''} is too high.",
        f"Lower it to {_tenth_text(rate)}; it is better to branch from a checkpoint before the rise, or to restart.",
        change=_lowered(rate),
        config=_lowered(rate),
        outcome=f"The loss ended at {last:.2f}{times} ({first:.2f}). Lower the learning rate to {_tenth_text(rate)}."
        if now >= max(first * RISE, first + RISE_LEAST)
        else "",
    )


def _has_risen(loss: NDArray[np.float64], known_start: bool) -> bool:
    end, first = len(loss), loss[0]
    level, began = float(np.median(loss[-WINDOW:])), float(np.median(loss[:CONSECUTIVE]))
    broken = max(first * BROKEN, first + LEAP_LEAST)
    high = loss >= broken
    streak = end if high.all() else int(np.argmin(high[::-1]))
    if streak >= max(CONSECUTIVE, end - streak):
        return True
    if known_start and end >= WINDOW and level >= broken:
        return True
    if end < WINDOW + CONSECUTIVE:
        return False
    since = max(0, end - LOOKBACK)
    earlier = np.median(sliding_window_view(loss[since : end - WINDOW + CONSECUTIVE], CONSECUTIVE), axis=1)
    lowest = max(NOISE_LEAST, since + int(np.argmin(earlier)) + CONSECUTIVE)
    before = loss[:lowest][-NOISE_WINDOW:]
    noise = NOISE * float(np.median(np.abs(np.diff(before))))
    return bool(
        level >= max(began * RISE, began + RISE_LEAST, began + noise)
        or level >= max(first * LEAP, first + LEAP_LEAST, first + noise)
    )


def learning_rate_too_low(metrics: RunMetrics) -> Finding | None:
    """Find a loss that fell by less than `FLAT` in half of the run, at a rate below `LOW_RATES` or `LOW_RATE`.

    Both are needed: a model that already knows the data has a flat loss at any learning rate.
    """
    steps, loss = metrics.likelihood()
    usual = LOW_RATES.get(str(metrics.config.get("finetuning_type")), LOW_RATE)
    if len(loss) < 4 * WINDOW or not metrics.total or steps[-1] < metrics.total / 2:
        return None
    part = max(WINDOW, len(loss) // 5)
    began, now = float(np.median(loss[:part])), float(np.median(loss[-part:]))
    if not 0 < metrics.learning_rate < usual or now < began * (1 - FLAT):
        return None
    rate = metrics.learning_rate
    return Finding(
        "too_slow_a_rate",
        f"The loss has barely decreased ({began:.3f} to {now:.3f} in {steps[-1]} steps), "
        f"and the learning rate of {written(rate)} is low.",
        f"Raise it to {written(10 * rate)}.",
        change={"learning_rate": 10 * rate},
        config={"learning_rate": 10 * rate},
    )


def gradient_explodes(metrics: RunMetrics, *, fades: bool = False) -> Finding | None:
    """Find gradient norms of `SPIKE` times the median of the 50 before them, in all of the last `CONSECUTIVE` values.

    Args:
        fades: whether the norm normally decreases towards 0, so that a hard batch stands out: it must then be `SPIKE`
            times the median of the first 20 values too.
    """
    steps, norms = metrics.line("grad_norm")
    if len(norms) < 20 + CONSECUTIVE:
        return None
    usual = float(np.median(norms[-50 - CONSECUTIVE : -CONSECUTIVE]))
    usual = max(usual, float(np.median(norms[:20]))) if fades else usual
    last = norms[-CONSECUTIVE:]
    if not usual or (last < SPIKE * usual).any():
        return None
    rate = metrics.learning_rate
    clipped = metrics.config.get("max_grad_norm")
    clipping = f", clipped to {clipped:g}" if isinstance(clipped, int | float) and clipped else ""
    return Finding(
        "gradient_explodes",
        f"The gradient norm is {last[-1]:.3g}{clipping}; its median was {usual:.3g} before step {steps[-CONSECUTIVE]}.",
        f"Set the learning rate to {_tenth_text(rate)}, and look at the rows of step {steps[-CONSECUTIVE]}.",
        change=_lowered(rate),
    )


def evaluation_loss_rises(metrics: RunMetrics, *, least: float = GAP_LEAST) -> Finding | None:
    """Find overfitting: the last two evaluation losses exceed the best one before by the factor `GAP` and by `least`.

    The finding suggests to stop after 5 % of the run's steps.

    Args:
        least: in the unit of the loss, since relative changes near 0 are noise.
    """
    steps, loss = metrics.likelihood("eval_")
    if len(loss) < 4:  # noqa: PLR2004 - two before the best one, two after it
        return None
    best = int(np.argmin(loss))
    if best > len(loss) - CONSECUTIVE or (loss[-2:] < max(GAP * loss[best], loss[best] + least)).any():
        return None
    end = metrics.step + max(1, round(0.05 * metrics.total))
    return Finding(
        "evaluation_rises",
        f"The evaluation loss has risen since step {steps[best]}, from {loss[best]:.3f} to {loss[-1]:.3f}: the model "
        "overfits the training set.",
        f"Stop the run; checkpoint-{steps[best]}, if it was kept, is the best. Next time train for fewer steps, or set "
        "early_stopping_steps.",
        change={"max_steps": end} if end < metrics.total or not metrics.total else {},
        config={"early_stopping_steps": CONSECUTIVE},
    )


def forgets(metrics: RunMetrics) -> Finding | None:
    """Find a loss on the probe set whose last two values exceed the base model's by `FORGOTTEN` and `FORGOTTEN_LEAST`.

    Only with `measure_forgetting`, whose value at step 0 is that of the base.
    """
    steps, loss = metrics.line("forgetting/loss")
    if len(loss) < CONSECUTIVE or steps[0] != 0:
        return None
    if (loss[-2:] < max(FORGOTTEN * loss[0], loss[0] + FORGOTTEN_LEAST)).any():
        return None
    best = int(steps[1 + int(np.argmin(loss[1:]))])
    return Finding(
        "forgets",
        f"The model forgets: its loss on general questions rose from {loss[0]:.3f} to {loss[-1]:.3f} nats per token.",
        f"Take an earlier checkpoint (the loss was lowest at step {best}). Next time use "
        f"{_lower_than(metrics.learning_rate)}, fewer steps, an adapter of lower rank, or add general examples.",
        config=_lowered(metrics.learning_rate),
    )


def validation_overlap(metrics: RunMetrics) -> Finding | None:
    """Find validation examples that are also training examples, a share above `LEAKED`."""
    examples, leaked = metrics.data.get("eval_examples") or 0, metrics.data.get("leaked") or 0
    if not examples or leaked <= LEAKED * examples:
        return None
    return Finding(
        "evaluation_leaks",
        f"{leaked:,} of the {examples:,} evaluation examples are in the training set too: the evaluation loss "
        "says little about new text.",
        "Use another eval_dataset, or val_size with drop_duplicates.",
        config={"drop_duplicates": True},
    )


def duplicate_examples(metrics: RunMetrics) -> Finding | None:
    """Find many examples that occur several times per epoch, see `llf_core.runs.findings`."""
    warning = duplicates_warning(metrics.data.get("copies") or 0, metrics.data.get("examples") or 0)
    if warning is None:
        return None
    return Finding(
        "copies",
        f"{warning} The training loss may fall without better results on new text.",
        "For the next run, set drop_duplicates: true. llf inspect lists the copies.",
        config={"drop_duplicates": True},
    )


def throughput_drops(metrics: RunMetrics) -> Finding | None:
    """Find a drop of the tokens per second, for example because another process shares the machine.

    All of the last values, at least `WINDOW` and over `SLOW_LEAST` seconds, are at most `SLOW` times the median of
    those before, of which there are three times as many, without the first `WINDOW` (warm-up).
    """
    steps, speed = metrics.line("tokens_per_second")
    apart = metrics.step_seconds * np.ptp(steps) / max(len(steps) - 1, 1) if len(steps) else 0.0
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
        "Check for other processes on this machine, CPU throttling, or swapping.",
    )


def memory_leaks(metrics: RunMetrics) -> Finding | None:
    """Find memory that grows steadily, so that it will not suffice until the last step.

    After the first fifth, in which caches fill, the medians of `BLOCKS` parts must increase strictly, by `CREEP` and
    `CREEP_LEAST` bytes in total, a third of it in the second half.
    """
    steps, memory = metrics.line("memory")
    skipped = len(memory) // 5  # caches fill at first
    steps, memory = steps[skipped:], memory[skipped:]
    if len(memory) < 3 * BLOCKS:
        return None
    levels = _medians(memory)
    growth, later = levels[-1] - levels[0], levels[-1] - levels[BLOCKS // 2]
    if growth < max(CREEP * levels[0], CREEP_LEAST) or later < growth / 3 or (np.diff(levels) <= 0).any():
        return None
    between = _medians(steps)
    per_step = growth / (between[-1] - between[0])
    full = ""
    if metrics.memory_limit > memory[-1]:
        end = steps[-1] + (metrics.memory_limit - memory[-1]) / per_step
        if 0 < metrics.total < end:
            return None  # enough memory until the last step
        full = f" At this rate {metrics.memory_limit / 1e9:.1f} GB will be full at step {end:,.0f}."
    return Finding(
        "memory_creeps",
        f"Memory grows by {_bytes(per_step)} a step, from {memory[0] / 1e9:.2f} to {memory[-1] / 1e9:.2f} GB.{full}",
        "Save a checkpoint, and resume from it when memory runs short: a new process starts with less memory.",
    )


def stalled(metrics: RunMetrics) -> Finding | None:
    """Find a step that takes `STALL` times as long as usual and at least `STALL_LEAST` seconds, as in a deadlock.

    Usual is the recent duration of a step or, where completions are sampled, the longest one so far.
    """
    usual = metrics.step_seconds
    if metrics.stage is not None and metrics.stage.completion_limit:  # steps that sample completions are longer
        usual = max(usual, metrics.line("step_seconds")[1].max(initial=0.0))
    if not metrics.running or not usual or metrics.idle < max(STALL * usual, STALL_LEAST):
        return None
    return Finding(
        "stalled",
        f"Step {metrics.step + 1} has not ended for {metrics.idle / 60:.0f} min; a step took {usual:.2g} s.",
        "A long evaluation may be running. Otherwise check the log and the load of this machine. Stop requests a "
        "checkpoint and ends the process after two minutes.",
        until=metrics.step + 1,
    )


def slowest_process(metrics: RunMetrics) -> Finding | None:
    """Find a process that is the slowest in the last `WAITS` values, for which the others wait a share of `WAITING`."""
    names = sorted((name for name in metrics.series if name.startswith("waiting/")), key=lambda name: (len(name), name))
    waits = [metrics.line(name)[1][-WAITS:] for name in names]
    steps, seconds = metrics.line("step_seconds")
    if len(names) < 2 or any(len(one) < WAITS for one in (*waits, seconds)):  # noqa: PLR2004 - several processes
        return None
    waited = np.array(waits)
    slowest = waited.argmin(axis=0)
    lost = (waited.sum(axis=0) - len(names) * waited.min(axis=0)) / (len(names) - 1)
    usual, wait = float(np.median(seconds[-WAITS:])), float(np.median(lost))
    if len(set(slowest)) > 1 or not usual or wait < WAITING * usual:
        return None
    rank = names[slowest[0]].removeprefix("waiting/")
    return Finding(
        "slowest_process",
        f"Process {rank} of {len(names)} (counted from 0) is the slowest since step {steps[-WAITS]}: the others wait "
        f"{wait:.2g} s of each step of {usual:.2g} s for it ({wait / usual:.0%}).",
        "Check the load and the clock of its processor or GPU; a slower device slows all of them.",
    )


def processes_differ(metrics: RunMetrics) -> Finding | None:
    """Find a process that divides its loss by another number or trains other weights than process 0, bit by bit."""
    for name, what in (("other_loss", "divides its loss by another number"), ("other_weights", "has other weights")):
        steps, ranks = metrics.line(name)
        if len(steps):
            told = f"Process {ranks[0]:.0f} (counted from 0) {what} than process 0 at step {steps[0]}."
            return Finding(
                "processes_differ",
                f"{told} From there on the result is not that of one process with the same batches.",
                "Go on from a checkpoint before that step. If it happens again, check the memory of that machine or "
                "GPU, and plug-ins that change weights.",
                outcome=f"{told} The result is unusable.",
            )
    return None


def _medians(values: NDArray[np.int64] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Medians `[BLOCKS]` of equal parts."""
    return np.array([float(np.median(part)) for part in np.array_split(values, BLOCKS)])


def _tenth(rate: float) -> float:
    return float(f"{rate / 10:.3g}")


def _tenth_text(rate: float) -> str:
    return written(_tenth(rate)) if rate else "a tenth"


def _lower_than(rate: float) -> str:
    return f"a lower learning rate than {written(rate)}" if rate else "a lower learning rate"


def _lowered(rate: float) -> dict[str, float]:
    return {"learning_rate": _tenth(rate)} if rate else {}


def _bytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"  # noqa: PLR2004 - a tenth of a MB


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


RULES: tuple[Rule, ...] = (
    Rule("not_finite", not_finite),
    Rule("nothing_learned", nothing_learned, with_loss("likelihood")),
    Rule("nothing_trained", gradient_is_zero, with_loss("likelihood")),
    Rule("nothing_trained", learning_rate_is_zero),
    Rule("diverged", diverged, with_loss("likelihood")),
    Rule("diverged", partial(diverged, known_start=True), with_loss("preference")),
    Rule("too_slow_a_rate", learning_rate_too_low, with_loss("likelihood", "preference")),
    Rule("gradient_explodes", gradient_explodes, with_loss("likelihood")),
    Rule("gradient_explodes", partial(gradient_explodes, fades=True), with_loss("preference")),
    Rule("evaluation_rises", evaluation_loss_rises, with_loss("likelihood")),
    Rule("evaluation_rises", partial(evaluation_loss_rises, least=GAP_LEAST_PREFERENCE), with_loss("preference")),
    Rule("forgets", forgets),
    Rule("evaluation_leaks", validation_overlap),
    Rule("copies", duplicate_examples),
    Rule("slower", throughput_drops, with_loss("likelihood", "preference")),
    Rule("memory_creeps", memory_leaks),
    Rule("stalled", stalled),
    Rule("slowest_process", slowest_process),
    Rule("processes_differ", processes_differ),
    Rule("likelihood_falls", chosen_likelihood_falls, compares_pairs),
    Rule("no_preference", no_preference, ranks_pairs),
    Rule("kl_runs_away", partial(kl_too_high, high=30.0, of="a completion"), samples_one),
    Rule("kl_runs_away", partial(kl_too_high, high=1.0, of="a token"), samples_groups),
    Rule("same_rewards", no_reward_variance, with_loss("reward")),
    Rule("entropy_collapses", entropy_collapses, with_loss("reward")),
    Rule("answers_cut", completions_truncated, with_loss("reward")),
)
