"""Rules of the stages that sample completions and learn from their rewards."""

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
    """Parse `reward_weights`, such as `1,0.5`; empty for None (equal weights), None if one is not a finite number."""
    try:
        found = tuple(float(name) for name in names or ())
    except ValueError:
        return None
    return found if all(math.isfinite(one) for one in found) else None


def _if_samples_groups(when: Callable[[ConfigValues], bool]) -> Callable[[ConfigValues], bool]:
    return lambda c: stage_of(c).samples_groups and when(c)


def _if_scored_by_functions(when: Callable[[ConfigValues], bool]) -> Callable[[ConfigValues], bool]:
    return lambda c: _scores_by_functions(c) and when(c)


def _scores_by_functions(c: ConfigValues) -> bool:
    stage = stage_of(c)
    return stage.uses_rewards and stage.scored_by_functions(c)


def _completions(c: ConfigValues) -> int:
    """Completions that a step of all processes learns from."""
    training = c.training
    return training.per_device_train_batch_size * training.gradient_accumulation_steps * c.launch.ranks


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
    except (re.error, OverflowError, RecursionError) as error:  # the last two: it repeats or nests too much
        return str(error)
    return None


def _longest_watched(c: ConfigValues) -> int:
    return max(map(len, (c.generation.watched_prompts or "").splitlines()), default=0)


SAMPLING: tuple[Rule, ...] = (
    Rule(
        ("watched_prompts",),
        lambda c: _longest_watched(c) > LONGEST_PROMPT,
        lambda c: (
            f"A watched prompt has {_longest_watched(c):,} characters. Expected at most {LONGEST_PROMPT:,}: a "
            "completion is generated at every checkpoint."
        ),
        (Fix("Remove the watched prompts", {"watched_prompts": None}),),
    ),
    Rule(
        ("reward_functions", "stage"),
        _if_scored_by_functions(lambda c: not c.stage.reward_functions),
        lambda c: (
            f"Stage {c.stage.stage} needs a reward function. Expected the name of at least one: a built-in one, or a "
            "function of yours with @llf.reward (in a terminal: --rewards FILE)."
        ),
        tuple(Fix(f"Use {name}", {"reward_functions": name}) for name in ("correct", "format")),
    ),
    Rule(
        ("reward_functions",),
        _if_scored_by_functions(
            lambda c: len(set(c.stage.reward_functions or ())) < len(c.stage.reward_functions or ())
        ),
        lambda c: f"`reward_functions` is {','.join(c.stage.reward_functions or ())}. Expected each function once.",
    ),
    Rule(
        ("reward_weights", "reward_functions"),
        _if_scored_by_functions(
            lambda c: (
                c.stage.reward_weights is not None
                and len(parse_reward_weights(c.stage.reward_weights) or ()) != len(c.stage.reward_functions or ())
            )
        ),
        lambda c: (
            f"`reward_weights` is {','.join(c.stage.reward_weights or ())}. Expected a number for each of the "
            f"{len(c.stage.reward_functions or ())} reward functions."
        ),
        (Fix("Use equal weights", {"reward_weights": None}),),
    ),
    Rule(
        ("reward_pattern",),
        _if_scored_by_functions(lambda c: _no_pattern(c) is not None),
        lambda c: f"`reward_pattern` is not a valid regular expression: {_no_pattern(c)}.",
        (Fix("Use the default pattern", {"reward_pattern": None}),),
    ),
    Rule(
        ("num_generations", "per_device_train_batch_size", "gradient_accumulation_steps"),
        _if_samples_groups(lambda c: _completions(c) % c.stage.num_generations != 0),
        lambda c: (
            f"A step has {_completions(c)} completions (per_device_train_batch_size times "
            f"gradient_accumulation_steps{' times the number of processes' if c.launch.ranks > 1 else ''}). "
            f"Expected a multiple of num_generations, {c.stage.num_generations}."
        ),
        _whole_groups,
    ),
    Rule(
        ("cutoff_strategy", "stage"),
        lambda c: stage_of(c).uses_rewards and c.data.cutoff_strategy == "split",
        lambda c: (
            "A prompt cannot be split. Prompts longer than cutoff_len are "
            + ("dropped." if _scores_by_functions(c) else "cut.")
        ),
        (Fix("Do not split", {"cutoff_strategy": None}),),
    ),
    Rule(
        ("neftune_noise_alpha", "stage"),
        _if_samples_groups(lambda c: bool(c.get("neftune_noise_alpha"))),
        "NEFTune noise would change the sampled completions. Expected no noise.",
        (Fix("Remove the noise", {"neftune_noise_alpha": None}),),
    ),
    Rule(
        ("train_sampling_strategy", "stage"),
        _if_samples_groups(lambda c: c.training.train_sampling_strategy != "random"),
        lambda c: (
            f"Stage {c.stage.stage} samples its prompts in random order. Expected train_sampling_strategy random."
        ),
        (Fix("Set to random", {"train_sampling_strategy": "random"}),),
    ),
    Rule(
        ("num_beams", "stage"),
        _if_samples_groups(lambda c: c.generation.num_beams > 1),
        lambda c: f"Stage {c.stage.stage} samples completions, which beam search does not. Expected num_beams 1.",
        (Fix("Set to 1", {"num_beams": 1}),),
    ),
    Rule(
        ("do_sample", "stage"),
        _if_samples_groups(lambda c: not c.generation.do_sample),
        lambda c: (
            f"Stage {c.stage.stage} compares several completions of a prompt, which are identical without sampling. "
            "Expected do_sample true."
        ),
        (Fix("Sample completions", {"do_sample": True}),),
    ),
    Rule(
        ("ref_model", "stage"),
        _if_samples_groups(lambda c: any(c.get(key) is not None for key in REFERENCE)),
        lambda c: (
            f"Stage {c.stage.stage} uses the initial model as its reference, if `beta` is above 0. Expected no "
            "`ref_model`."
        ),
        (Fix("Remove the reference model", dict.fromkeys(REFERENCE)),),
    ),
    Rule(
        ("top_p", "top_k", "stage"),
        _if_samples_groups(lambda c: c.generation.top_p < 1 or c.generation.top_k > 0),
        lambda c: (
            f"Completions are sampled from the likeliest tokens only (top_p {c.generation.top_p:g}, top_k "
            f"{c.generation.top_k}), but the gradient uses the whole distribution: unlikely tokens are never explored."
        ),
        (Fix("Sample from all tokens", {"temperature": 1.0, "top_p": 1.0, "top_k": 0}),),
        severity="warning",
    ),
)
