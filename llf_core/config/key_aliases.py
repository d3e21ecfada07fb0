"""Translates older and alternative names of keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llf_core.config.known_keys import known
from llf_core.config.optimizer_names import translate_optimizer
from llf_core.config.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from llf_core.config.read_config import RequestedConfig

NOTHING = object()


def _share(value: object) -> object:
    return value or NOTHING


def _if_true(then: object) -> Callable[[object], object]:
    return lambda value: then if value else NOTHING


def _same(value: object) -> object:
    return NOTHING if value is None else value


VALUES: dict[str, Callable[[object], object]] = {
    "warmup_ratio": _share,
    "group_by_length": _if_true("group_by_length"),
    "disable_shuffling": _if_true("sequential"),
    "adafactor": _if_true("adafactor"),
    "pissa_init": _if_true("pissa"),
    "predict_with_generate": _if_true("rouge,bleu"),
    "use_liger_kernel": _if_true(then=True),
    "neat_packing": _if_true(then=True),  # ours never leaks
}


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
        value = VALUES.get(old, _same)(given)
        if value is NOTHING:
            continue
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
    if old == "warmup_ratio":
        if isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given < 1:
            return None
        return f"`warmup_ratio` is {given!r}. Expected a share of the steps, from 0 to below 1."
    if new in requested.values and requested.values[new] != value:  # NaN is not equal to itself
        return f"`{old}: {given}` and `{new}: {requested.values[new]}` set the same key. Expected one of them."
    return None
