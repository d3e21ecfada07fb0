"""Conditions that several rules share, and the keys that hold options of a library."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from llf_core.config.classify_key import show
from llf_core.config.option import LARGEST
from llf_core.config.registry import method_of, modifiers_of, stage_of
from llf_core.config.rule import Fix
from llf_core.config.sections import STRATEGIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.values import ConfigValues

    AcceptedOptions = Mapping[str, "str | tuple[str, ...]"]

HOLD_OUT = Fix("Hold out 5 %", {"val_size": 0.05})  # a share that is chosen by hand
NOTHING_HELD_OUT = "there is no evaluation data: `val_size` is 0. Expected a share above 0, or an evaluation data set."
NO_DATA = "there is no evaluation data (`val_size` or `eval_dataset`)"


def evaluates(c: ConfigValues) -> bool:
    """Whether the config has evaluation data: a data set of its own or a validation split."""
    return bool(c.data.eval_dataset) or c.data.val_size > 0


def never_evaluated(c: ConfigValues) -> bool:
    """Whether the config has evaluation data, but never evaluates during training."""
    return evaluates(c) and c.training.eval_strategy == "no"


def no_answers_reason(c: ConfigValues) -> str:
    """Why a run generates no answers for `metrics` at its evaluations; empty if it does."""
    stage = stage_of(c)
    if stage.has_reward_head or stage.data_kind not in {"answers", "pairs"}:
        return f"stage {stage.name} has no validation examples with a prompt and an expected answer"
    if c.data.streaming:
        return "validation examples of streamed data are not stored"
    return "" if evaluates(c) else NO_DATA


def no_accuracy_reason(c: ConfigValues) -> str:
    """Why the evaluations of a run cannot measure the accuracy of tokens; empty if they do."""
    stage = stage_of(c)
    if not stage.token_accuracy:
        return f"the loss of stage {stage.name} is not of single tokens"
    return "" if evaluates(c) else NO_DATA


def no_sets_reason(c: ConfigValues) -> str:
    """Why the evaluations of a run cannot tell its data sets apart; empty if they do."""
    stage = stage_of(c)
    if stage.uses_rewards:
        return f"stage {stage.name} evaluates the completions to the prompts of all data sets together"
    if c.data.streaming:
        return "validation examples of streamed data are not stored by data set"
    return "" if evaluates(c) else NO_DATA


def weights_frozen(c: ConfigValues) -> bool:
    """Whether the base model's weights are frozen."""
    return method_of(c).frozen_base


def joins_texts(c: ConfigValues) -> bool:
    """Whether texts are joined and cut into blocks of `cutoff_len`: in pre-training, unless `packing` is false."""
    return stage_of(c).data_kind == "texts" and c.data.packing is not False


def packs_examples(c: ConfigValues) -> bool:
    """Whether examples, which do not attend to each other, are packed into rows: texts are joined instead."""
    return bool(c.data.packing) and stage_of(c).data_kind != "texts"


def shards_weights(c: ConfigValues) -> bool:
    """Whether each of several processes keeps only its share of the weights."""
    return STRATEGIES[c.launch.strategy].shards and c.launch.ranks > 1


def whole_load_reason(c: ConfigValues, *, gguf: bool) -> str:
    """Why each process, and not the first one alone, loads all weights before they are sharded.

    It is the end of a sentence, and empty if the first one alone does.

    Args:
        gguf: whether the model is a GGUF file.
    """
    if gguf:
        return "the model is a GGUF file"
    if c.model.quantization_bit is not None:
        return "they are quantized while they are loaded"
    if c.model.adapter_name_or_path:
        return "there are adapters in adapter_name_or_path"
    return next((f"{one.switch} reads them" for one in modifiers_of(c) if one.reads_weights), "")


NUMBER, FLAG, WHOLE = "a number", "true or false", "an integer of at least 1"
_WAYS = ("linear", "cosine", "1-sqrt")
_COSINE = {"num_cycles": NUMBER, "min_lr": NUMBER, "min_lr_rate": NUMBER}

SCHEDULES: dict[str, AcceptedOptions] = {
    "linear": {},
    "cosine": {"num_cycles": NUMBER},
    "cosine_with_restarts": {"num_cycles": NUMBER},
    "polynomial": {"lr_end": NUMBER, "power": NUMBER},
    "inverse_sqrt": {"timescale": NUMBER},
    "reduce_lr_on_plateau": {
        **dict.fromkeys(("factor", "patience", "threshold", "cooldown", "min_lr", "eps"), NUMBER),
        "mode": ("min", "max"),
        "threshold_mode": ("rel", "abs"),
    },
    "greedy": {
        **dict.fromkeys(("factor", "patience", "threshold", "cooldown", "warmup", "min_lr", "max_lr", "eps"), NUMBER),
        **dict.fromkeys(("window_size", "reset_start"), NUMBER),
        "mode": ("min", "max"),
        "threshold_mode": ("rel", "abs"),
        "smooth": FLAG,
        "verbose": FLAG,
    },
    "cosine_with_min_lr": _COSINE,
    "cosine_warmup_with_min_lr": {**_COSINE, "warmup_lr_rate": NUMBER},
    "warmup_stable_decay": {
        **dict.fromkeys(("num_decay_steps", "num_stable_steps", "min_lr_ratio", "num_cycles"), NUMBER),
        "warmup_type": _WAYS,
        "decay_type": _WAYS,
    },
}
"""Options of `lr_scheduler_kwargs`; transformers ignores those of other schedules."""

ACCELERATE: AcceptedOptions = {
    **dict.fromkeys(("split_batches", "dispatch_batches", "even_batches", "use_seedable_sampler"), FLAG),
    **dict.fromkeys(("non_blocking", "use_configured_state"), FLAG),
    "gradient_accumulation_kwargs": "a mapping",
}

ACCUMULATION: AcceptedOptions = {
    "num_steps": WHOLE,
    **dict.fromkeys(("adjust_scheduler", "sync_with_dataloader", "sync_each_batch"), FLAG),
}

CHECKPOINTING: AcceptedOptions = {
    **dict.fromkeys(("use_reentrant", "preserve_rng_state", "debug", "early_stop"), FLAG),
    "determinism_check": ("default", "none"),
}
DTYPES = ("float32", "bfloat16", "float16")
SCHEDULE_FREE: AcceptedOptions = {"weight_lr_power": NUMBER, "r": NUMBER}
TORCHAO: AcceptedOptions = {"bf16_stochastic_round": FLAG}
SGD: AcceptedOptions = {**dict.fromkeys(("momentum", "dampening", "weight_decay"), NUMBER), "nesterov": FLAG}
ADEMAMIX: AcceptedOptions = dict.fromkeys(("beta1", "beta2", "beta3", "alpha", "eps", "t_alpha", "t_beta3"), NUMBER)

OPTIMIZERS: dict[str, AcceptedOptions] = {
    "sgd": SGD,
    "adagrad": dict.fromkeys(("lr_decay", "weight_decay", "eps"), NUMBER),
    "grokadamw": dict.fromkeys(("alpha_init", "lamb", "gamma", "gradient_clipping"), NUMBER),
    "stable_adamw": {"decouple_lr": FLAG, "max_lr": NUMBER, "kahan_sum": FLAG},
    "adamw_anyprecision": {
        "use_kahan_summation": FLAG,
        **dict.fromkeys(("momentum_dtype", "variance_dtype", "compensation_buffer_dtype"), DTYPES),
    },
    "schedule_free_adamw": SCHEDULE_FREE,
    "schedule_free_radam": SCHEDULE_FREE,
    "schedule_free_sgd": SCHEDULE_FREE,
    "adamw_torch_8bit": TORCHAO,
    "adamw_torch_4bit": TORCHAO,
    **dict.fromkeys(("ademamix", "ademamix_8bit", "paged_ademamix_8bit", "paged_ademamix_32bit"), ADEMAMIX),
    # transformers hands their options over as texts, with which bitsandbytes fails
    "rmsprop_bnb": {},
    "rmsprop_bnb_8bit": {},
    "rmsprop_bnb_32bit": {},
    "rmsprop": {**dict.fromkeys(("momentum", "alpha", "eps", "weight_decay"), NUMBER), "centered": FLAG},
}
"""Options of `optim_args`; transformers ignores those of other optimizers."""


def rejected_options(key: str, given: Mapping[str, object] | None, accepted: AcceptedOptions, who: str) -> str:
    """Describe the first option that a library does not accept; empty if all are accepted.

    Args:
        accepted: what each may be: `NUMBER`, `FLAG`, `WHOLE`, "a mapping", or one of several words.
    """
    for name, value in (given or {}).items():
        if name not in accepted:
            expected = f"Expected {' or '.join(f'`{one}`' for one in accepted)}." if accepted else "It has no options."
            return f"{who} has no option `{name}`. {expected}"
        accepted_values = accepted[name]
        if not _fits(value, accepted_values):
            expected = accepted_values if isinstance(accepted_values, str) else f"one of {', '.join(accepted_values)}"
            return f"`{name}` in `{key}` is {show(value)}. Expected {expected}."
    return ""


def optimizer_options(text: str | None) -> dict[str, Any]:
    """Parse `optim_args`, such as `beta1=0.9,amsgrad=true`: numbers and flags by name, other values as text."""
    parts = [part.partition("=") for part in (text or "").replace(" ", "").split(",") if part]
    return {name: _parsed(value) for name, _, value in parts}


def _parsed(value: str) -> bool | float | str:
    if value.lower() in {"true", "false", "yes", "no"}:
        return value.lower() in {"true", "yes"}
    try:
        return float(value)
    except ValueError:
        return value


def _fits(value: object, accepted_values: str | tuple[str, ...]) -> bool:
    if isinstance(accepted_values, tuple):
        return value in accepted_values
    if accepted_values == FLAG:
        return isinstance(value, bool) or value is None
    if accepted_values == "a mapping":
        return isinstance(value, dict) or value is None
    if accepted_values == WHOLE:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 1
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return math.isfinite(value) and abs(value) <= LARGEST


REFERENCE = ("ref_model", "ref_model_adapters", "ref_model_quantization_bit")
"""Keys that name another reference model than the initial one."""


def names_reference(config: ConfigValues) -> bool:
    """Whether a config names another reference model than the initial one."""
    return any(config.get(key) is not None for key in REFERENCE)


def named_reference(config: ConfigValues) -> str | None:
    """`ref_model` if it names a model that is loaded beside the trained one; else None."""
    return "ref_model" if config.get("ref_model") else None


def precomputes_reference(config: ConfigValues, rows: int | None, processes: int = 1) -> bool:
    """Whether the reference's log-probabilities are computed before the first step, in a stage that `compares`.

    The trained model is the reference then, so that no copy of it is loaded. Without `precompute_ref_log_probs` they
    are where that takes no more work: if each example comes at least once.

    Args:
        rows: number of training examples; None if unknown.
    """
    asked, training = config.stage.precompute_ref_log_probs, config.training
    if asked is not None or config.data.streaming:
        return bool(asked) and not config.data.streaming
    if training.max_steps <= 0:
        return training.num_train_epochs >= 1
    step = training.per_device_train_batch_size * training.gradient_accumulation_steps * processes
    return rows is not None and training.max_steps * step >= rows
