"""Translates older and alternative names of keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.classify_key import show
from llf_core.config.engine_configs import translate_engines
from llf_core.config.known_keys import known
from llf_core.config.llama_factory_v1 import translate_v1
from llf_core.config.optimizer_names import translate_optimizer
from llf_core.config.option import flag, same_value
from llf_core.config.problem import Problem
from llf_core.config.renamed_keys import SWITCHES, is_off

if TYPE_CHECKING:
    from llf_core.config.read_config import RequestedConfig


def translate(requested: RequestedConfig) -> None:
    """Translate other names of keys, such as `warmup_ratio`, and of optimizers, such as `galore_adamw`, with notes."""
    translate_v1(requested)
    translate_engines(requested)
    _rename(requested)
    translate_optimizer(requested)


def _rename(requested: RequestedConfig) -> None:
    """Rename aliases, with a note for each.

    Two names of one key with different values, or a `warmup_ratio` outside its range, are errors. An alias that is off,
    such as `adafactor: false`, is removed.
    """
    for old, new in known().translated.items():
        if old not in requested.values:
            continue
        given = requested.values.pop(old)
        line = requested.lines.pop(old, None)
        if is_off(old, given):
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
