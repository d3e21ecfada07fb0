"""Translates older and alternative names of keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llf_core.config.classify_key import show
from llf_core.config.known_keys import known
from llf_core.config.optimizer_names import translate_optimizer
from llf_core.config.option import flag, same_value
from llf_core.config.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llf_core.config.read_config import RequestedConfig

SWITCHES: dict[str, object] = {
    "group_by_length": "group_by_length",
    "disable_shuffling": "sequential",
    "adafactor": "adafactor",
    "pissa_init": "pissa",
    "predict_with_generate": "rouge,bleu",
    "use_liger_kernel": True,
    "neat_packing": True,  # ours never leaks
}
"""Aliases that are flags, and the value of the other key that each means where it is true."""


def translate(requested: RequestedConfig) -> None:
    """Translate other names of keys, such as `warmup_ratio`, and other names of optimizers, such as `galore_adamw`.

    A config of LLaMA-Factory or of an older transformers then runs unchanged. Notes and conflicts are added to its
    problems.

    Args:
        requested: the config as given; changed in place.
    """
    _rename(requested)
    translate_optimizer(requested)


def _rename(requested: RequestedConfig) -> None:
    """Rename aliases of config keys to the keys of LLF, for example `warmup_ratio` to `warmup_steps`.

    A config of LLaMA-Factory or of an older transformers then runs unchanged. Each renamed key adds a note to the
    config's problems. Two names of one key with different values, or a `warmup_ratio` outside its range, add an error.
    An alias that is off, such as `adafactor: false`, is removed.

    Args:
        requested: the config as given; changed in place.
    """
    for old, new in known().translated.items():
        if old not in requested.values:
            continue
        given = requested.values.pop(old)
        line = requested.lines.pop(old, None)
        if _is_off(old, given):
            continue
        value = SWITCHES.get(old, given)
        problem = _conflict(requested, old, new, given, value)
        if problem:
            requested.problems.append(Problem("invalid", old, given, problem, line=line, keys=(old, new)))
            continue
        if old == "warmup_ratio" and requested.values.get(new):
            message = f"`warmup_ratio` is not used, since `warmup_steps` is {requested.values[new]}."
        else:
            requested.values[new] = value
            if line is not None:
                requested.lines[new] = line
            message = f"`{old}` is read as `{new}: {value}`."
        requested.problems.append(
            Problem("not_needed", old, given, message, severity="note", line=line, keys=(old, new))
        )


def without_renamed(values: Mapping[str, Any], changes: Mapping[str, object]) -> dict[str, Any]:
    """Leave out the keys that changes set by another name, so that the changes and not the earlier values count.

    Args:
        values: of a config, by any names.
        changes: values by any names. A flag that is off, such as `adafactor: false`, sets its key only where the
            config has the value that the flag stands for.
    """
    left, translated = dict(values), known().translated
    for old, new in translated.items():
        if old not in changes or new in changes:
            continue
        off = old in SWITCHES and changes[old] is not None and _is_off(old, changes[old])
        if not off or values.get(new) == SWITCHES[old]:
            left.pop(new, None)
    changed = {*changes, *(translated[key] for key in changes if key in translated and not _is_off(key, changes[key]))}
    return {key: value for key, value in left.items() if key in changes or translated.get(key) not in changed}


def _is_off(old: str, given: object) -> bool:
    """Whether an alias has a value that sets nothing."""
    if old in SWITCHES:
        return given is None or flag(given) is False
    return given is None or (old == "warmup_ratio" and given == 0)


def _conflict(requested: RequestedConfig, old: str, new: str, given: object, value: object) -> str | None:
    if old in SWITCHES and flag(given) is None:
        return f"`{old}` is {show(given)}. Expected true or false."
    if old == "warmup_ratio":
        if isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given < 1:
            return None
        return f"`warmup_ratio` is {given!r}. Expected a share of the steps, from 0 to below 1."
    other = requested.values.get(new)
    if other is not None and not same_value(other, value):  # NaN is not equal to itself
        return f"`{old}: {given}` and `{new}: {requested.values[new]}` set the same key. Expected one of them."
    return None
