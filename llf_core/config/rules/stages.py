"""Rules of stages: reference models, pairs, and completions that are sampled and rewarded."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from llf_core.config.declaration import StageDeclaration
from llf_core.config.field_specs import field
from llf_core.config.registry import declared, stage_of
from llf_core.config.rule import Fix, Rule
from llf_core.config.rules.conditions import REFERENCE
from llf_core.config.rules.data import has_data_kind
from llf_core.config.sections import LONGEST_PROMPT

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.config.values import ConfigValues


def _adapters(c: ConfigValues) -> int:
    own = c.model.adapter_name_or_path if c.get("ref_model") is None else None
    named = c.get("ref_model_adapters")
    return len((own if named is None else named) or ())


def _second(c: ConfigValues) -> str | None:
    return stage_of(c).second_model(c)


PREFERENCE: tuple[Rule, ...] = (
    Rule(
        ("trust_remote_code", "ref_model", "teacher_model", "reward_model"),
        lambda c: bool(c.model.trust_remote_code) and _second(c) is not None,
        lambda c: (
            f"`trust_remote_code` applies to {_second(c)} too: Python code that comes with {c.get(_second(c) or '')} "
            "runs with your permissions. Continue if you trust both."
        ),
        (Fix("Do not run code of models", {"trust_remote_code": False}),),
        severity="warning",
    ),
    Rule(
        ("neftune_noise_alpha", "stage"),
        lambda c: stage_of(c).uses_reference(c) and bool(c.get("neftune_noise_alpha")),
        lambda c: (
            f"Stage {c.stage.stage} compares the policy with a reference model, and NEFTune adds noise to the policy "
            "only, which would count as a difference. Expected no noise."
        ),
        (Fix("Remove the noise", {"neftune_noise_alpha": None}),),
    ),
    Rule(
        ("ref_model_quantization_bit", "ref_model_adapters", "adapter_name_or_path"),
        lambda c: stage_of(c).has_reference and bool(c.get("ref_model_quantization_bit")) and _adapters(c) > 1,
        lambda c: (
            f"The {_adapters(c)} adapters cannot be merged into a quantized reference model without loss. Expected one "
            "adapter, or a reference model that is not quantized."
        ),
        (Fix("Do not quantize it", {"ref_model_quantization_bit": None}),),
    ),
    Rule(
        ("precompute_ref_log_probs", "streaming"),
        lambda c: stage_of(c).compares and bool(c.get("precompute_ref_log_probs")) and bool(c.data.streaming),
        "The log-probabilities of the reference model cannot be precomputed for a streamed data set.",
        (
            Fix("Compute them in each step", {"precompute_ref_log_probs": None}),
            Fix("Switch off streaming", {"streaming": False}),
        ),
    ),
    Rule(
        ("cutoff_strategy", "stage"),
        lambda c: c.data.cutoff_strategy == "split" and has_data_kind(c, "pairs", "unpaired_preferences"),
        lambda c: (
            f"Stage {c.stage.stage} compares whole responses, which cannot be split. Expected cut or drop for those "
            "longer than cutoff_len."
        ),
        (Fix("Cut long responses", {"cutoff_strategy": None}), Fix("Drop long responses", {"cutoff_strategy": "drop"})),
    ),
)


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


def stage_key_rules() -> tuple[Rule, ...]:
    """Create a rule for each key that an installed stage calls by another name (`StageDeclaration.other_names`)."""
    keys = {key for stage in declared(StageDeclaration).values() for key in stage.other_names}
    return tuple(map(_rule, sorted(keys)))


def _name_in_stage(config: ConfigValues, key: str) -> str | None:
    """The name of an option that is set, in the selected stage; None where it is not set, or has no other name."""
    spec = field(key)
    name = stage_of(config).other_names.get(key)
    return name if name and spec and config.get(key) != spec.default else None


def _rule(key: str) -> Rule:
    return Rule(
        (key, "stage"),
        lambda c: _name_in_stage(c, key) is not None,
        lambda c: f"`{key}` has no effect in stage {c.stage.stage}, which calls this `{_name_in_stage(c, key)}`.",
        lambda c: (
            Fix(f"Set {_name_in_stage(c, key)} to {c.get(key)}", {key: None, str(_name_in_stage(c, key)): c.get(key)}),
            Fix(f"Remove {key}", {key: None}),
        ),
    )
