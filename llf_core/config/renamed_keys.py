from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.config.known_keys import known
from llf_core.config.option import flag

if TYPE_CHECKING:
    from collections.abc import Mapping

SWITCHES: dict[str, object] = {
    "group_by_length": "group_by_length",
    "disable_shuffling": "sequential",
    "adafactor": "adafactor",
    "pissa_init": "pissa",
    "predict_with_generate": "rouge,bleu",
    "use_liger_kernel": True,
    "neat_packing": True,  # ours never leaks
}
"""Aliases that are flags, and the value of the other key where they are true."""


CONFIGS = (
    "deepspeed", "fsdp", "fsdp_config", "dist_config", "peft_config", "quant_config", "kernel_config", "optim_config",
    "train_dataset",
)  # fmt: skip
"""Aliases that hold a config of their own, or the path of one."""


def without_renamed(values: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, Any]:
    """Leave out the keys that changes set by another name, so that the changes count.

    A flag that is off, such as `adafactor: false`, sets its key only where the config has the value that it stands for.
    """
    left, translated = _without_optimizer(values, changes), known().translated
    for old, new in translated.items():
        if old not in changes or new in changes:
            continue
        off = old in SWITCHES and changes[old] is not None and is_off(old, changes[old])
        if not off or values.get(new) == SWITCHES[old]:
            left.pop(new, None)
    changed = {*changes, *(translated[key] for key in changes if key in translated and not is_off(key, changes[key]))}
    return {key: value for key, value in left.items() if key in changes or translated.get(key) not in changed}


def _without_optimizer(values: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """Leave out the keys that a name of transformers among the changes replaces, such as `optim: galore_adamw`.

    The name selects the whole optimizer, so `use_apollo` of the values no longer counts; `optim_args` are all options.
    """
    name = changes.get("optim")
    if not isinstance(name, str) or name not in known().optimizers:
        return dict(values)
    replaced = {key for keys in known().optimizers.values() for key in keys} - {"optim"}
    if "optim_args" in changes:
        replaced |= {key for options in known().optimizer_options.values() for key, _ in options.values()}
    if "optim_target_modules" in changes:
        replaced |= {*known().optimizer_targets.values()}
    return {key: value for key, value in values.items() if key in changes or key not in replaced}


def is_off(old: str, given: object) -> bool:
    """Whether an alias, one of `known().translated`, has a value that sets nothing, such as `adafactor: false`."""
    if old in SWITCHES:
        return given is None or flag(given) is False
    if old in CONFIGS:
        return given is None or given is False or given in ("", [], {})
    return given is None or (old == "warmup_ratio" and given == 0)
