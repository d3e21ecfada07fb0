"""Keys that hold options of a library, and which it accepts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from llf_core.config.classify_key import show
from llf_core.config.option import LARGEST

if TYPE_CHECKING:
    from collections.abc import Mapping

    AcceptedOptions = Mapping[str, "str | tuple[str, ...]"]

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
