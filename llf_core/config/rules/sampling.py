"""Rules of the stages that draw answers by themselves and learn from their rewards."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from llf_core.config.generation import LONGEST_PROMPT
from llf_core.config.problem import Fix
from llf_core.config.reference_model import REFERENCE
from llf_core.config.registry import stage_of
from llf_core.config.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.config.values import ConfigValues


def parse_reward_weights(names: tuple[str, ...] | None) -> tuple[float, ...] | None:
    """Parse `reward_weights`.

    Returns:
        The weights as numbers, empty if none are given; None if one is not a finite number.
    """
    try:
        found = tuple(float(name) for name in names or ())
    except ValueError:
        return None
    return found if all(math.isfinite(one) for one in found) else None


def _where(when: Callable[[ConfigValues], bool]) -> Callable[[ConfigValues], bool]:
    """A condition that only counts for these stages."""
    return lambda c: stage_of(c).samples_groups and when(c)


def _judged(when: Callable[[ConfigValues], bool]) -> Callable[[ConfigValues], bool]:
    """A condition that only counts where reward functions score answers."""
    return lambda c: _scores_by_functions(c) and when(c)


def _scores_by_functions(c: ConfigValues) -> bool:
    """Whether reward functions, and no reward model, score the completions."""
    stage = stage_of(c)
    return stage.uses_rewards and stage.scored_by_functions(c)


def _answers(c: ConfigValues) -> int:
    """Answers that a step of one process learns from."""
    return c.training.per_device_train_batch_size * c.training.gradient_accumulation_steps


def _whole_groups(c: ConfigValues) -> tuple[Fix, ...]:
    size, wanted = c.training.per_device_train_batch_size, c.stage.num_generations
    steps = wanted // math.gcd(size, wanted)
    return (
        Fix(f"Batches of {wanted}", {"per_device_train_batch_size": wanted, "gradient_accumulation_steps": 1}),
        Fix(f"Accumulate {steps}", {"gradient_accumulation_steps": steps}),
    )


def _no_pattern(c: ConfigValues) -> str | None:
    try:
        re.compile(c.stage.reward_pattern or "", re.DOTALL)
    except re.error as error:
        return str(error)
    return None


def _longest_watched(c: ConfigValues) -> int:
    return max(map(len, (c.generation.watched_prompts or "").splitlines()), default=0)


SAMPLING: tuple[Rule, ...] = (
    Rule(
        ("watched_prompts",),
        lambda c: _longest_watched(c) > LONGEST_PROMPT,
        lambda c: (
            f"A watched prompt has {_longest_watched(c):,} characters. Expected at most {LONGEST_PROMPT:,}: it is "
            "answered at every checkpoint."
        ),
        (Fix("Watch nothing", {"watched_prompts": None}),),
    ),
    Rule(
        ("reward_functions", "stage"),
        _judged(lambda c: not c.stage.reward_functions),
        lambda c: (
            f"Stage {c.stage.stage} has no reward function. Expected at least one: its name, or one of yours under "
            "@llf.reward (in a terminal: --rewards FILE)."
        ),
        tuple(Fix(f"Use {name}", {"reward_functions": name}) for name in ("correct", "format")),
    ),
    Rule(
        ("reward_functions",),
        _judged(lambda c: len(set(c.stage.reward_functions or ())) < len(c.stage.reward_functions or ())),
        lambda c: f"A reward function stands twice in {','.join(c.stage.reward_functions or ())}. Expected each once.",
    ),
    Rule(
        ("reward_weights", "reward_functions"),
        _judged(
            lambda c: (
                c.stage.reward_weights is not None
                and len(parse_reward_weights(c.stage.reward_weights) or ()) != len(c.stage.reward_functions or ())
            )
        ),
        lambda c: (
            f"The weights of the rewards are {','.join(c.stage.reward_weights or ())}. Expected a number for each of "
            f"the {len(c.stage.reward_functions or ())} reward functions."
        ),
        (Fix("Weigh all alike", {"reward_weights": None}),),
    ),
    Rule(
        ("reward_pattern",),
        _judged(lambda c: _no_pattern(c) is not None),
        lambda c: f"The form of an answer is not a regular expression: {_no_pattern(c)}.",
        (Fix("The usual form", {"reward_pattern": None}),),
    ),
    Rule(
        ("num_generations", "per_device_train_batch_size", "gradient_accumulation_steps"),
        _where(lambda c: _answers(c) % c.stage.num_generations != 0),
        lambda c: (
            f"A step has {_answers(c)} answers (per_device_train_batch_size times gradient_accumulation_steps), which "
            f"are no whole groups of num_generations {c.stage.num_generations}. In this stage a batch counts answers."
        ),
        _whole_groups,
    ),
    Rule(
        ("cutoff_strategy", "stage"),
        lambda c: stage_of(c).uses_rewards and c.data.cutoff_strategy == "split",
        lambda c: (
            "A prompt cannot be split. Longer ones than cutoff_len are "
            + ("left out." if _scores_by_functions(c) else "cut.")
        ),
        (Fix("Do not split", {"cutoff_strategy": None}),),
    ),
    Rule(
        ("neftune_noise_alpha", "stage"),
        _where(lambda c: bool(c.get("neftune_noise_alpha"))),
        "Noise on the embeddings would change the answers that are drawn.",
        (Fix("No noise", {"neftune_noise_alpha": None}),),
    ),
    Rule(
        ("train_sampling_strategy", "stage"),
        _where(lambda c: c.training.train_sampling_strategy != "random"),
        lambda c: f"Stage {c.stage.stage} draws its prompts in random order. Expected train_sampling_strategy random.",
        (Fix("Set to random", {"train_sampling_strategy": "random"}),),
    ),
    Rule(
        ("num_beams", "stage"),
        _where(lambda c: c.generation.num_beams > 1),
        lambda c: f"Stage {c.stage.stage} draws its answers, and a beam search draws none. Expected num_beams 1.",
        (Fix("Set to 1", {"num_beams": 1}),),
    ),
    Rule(
        ("do_sample", "stage"),
        _where(lambda c: not c.generation.do_sample),
        lambda c: (
            f"Stage {c.stage.stage} compares several answers to a prompt, which without sampling are all the same. "
            "Expected do_sample true."
        ),
        (Fix("Draw answers", {"do_sample": True}),),
    ),
    Rule(
        ("ref_model", "stage"),
        _where(lambda c: any(c.get(key) is not None for key in REFERENCE)),
        lambda c: (
            f"Stage {c.stage.stage} takes no other reference (ref_model) than the model before its first step, and "
            "that only where `beta` is above 0."
        ),
        (Fix("Leave the reference out", dict.fromkeys(REFERENCE)),),
    ),
    Rule(
        ("top_p", "top_k", "stage"),
        _where(lambda c: c.generation.top_p < 1 or c.generation.top_k > 0),
        lambda c: (
            f"Answers are drawn from the likeliest tokens alone (top_p {c.generation.top_p:g}, top_k "
            f"{c.generation.top_k}), and the gradient is that of all: unlikely tokens are never tried."
        ),
        (Fix("Draw from all", {"temperature": 1.0, "top_p": 1.0, "top_k": 0}),),
        severity="warning",
    ),
)
