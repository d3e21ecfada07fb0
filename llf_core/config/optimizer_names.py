from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

from llf_core.config.known_keys import known
from llf_core.config.optimizer import assignments
from llf_core.config.option import same_value
from llf_core.config.problem import Problem
from llf_core.config.rules.mappings import optimizer_options

if TYPE_CHECKING:
    from llf_core.config.read_config import RequestedConfig

TARGETS = "optim_target_modules"
ALL_LINEAR = {"all-linear", "all_linear"}
NAMES = {"optim", "optim_args", TARGETS}
"""Keys by which transformers selects an optimizer with its options."""


def translate_optimizer(requested: RequestedConfig) -> None:
    """Replace a name such as `galore_adamw_layerwise`, with its `optim_args`, by `use_galore` and its options.

    Defaults of transformers that differ from LLaMA-Factory's are written down. An unknown option of `optim_args` is an
    error, and so is a contradiction to the key that it means, unless that key is an override.
    """
    name = requested.values.get("optim")
    entry = known().optimizers.get(name) if isinstance(name, str) else None
    if entry is None:
        return
    given = requested.values.get("optim_args")
    options = optimizer_options(requested.values.pop("optim_args")) if _are_assignments(given) else {}
    read = dict(entry)
    switch = next(key for key in entry if key.startswith("use_"))
    said = {key: f"`optim: {name}`" for key in entry if key != "optim"}
    for option, (key, default) in known().optimizer_options[switch].items():
        if option in options:
            said[key] = f"`{option}` in `optim_args`"
        read[key] = _whole(options.pop(option, default))
    targets = requested.values.pop(TARGETS, None)
    if targets is not None:
        key = known().optimizer_targets[switch]
        said[key] = f"`{TARGETS}`"
        read[key] = "all" if isinstance(targets, str) and targets in ALL_LINEAR else targets
    # an override of a key counts, whatever the file says in other words
    overridden = requested.overridden if requested.overridden.isdisjoint(NAMES) else set()
    requested.problems += [
        Problem(
            "invalid",
            key,
            other,
            f"{where} and `{key}: {_plain(other)}` set the same. Expected one of them.",
            line=requested.lines.get(key),
        )
        for key, where in said.items()
        if key not in overridden
        if (other := requested.values.get(key)) is not None and not same_value(other, read[key])
    ]
    if options:
        message = (
            f"The optimizer {name} has no option `{next(iter(options))}` (`optim_args`). Expected {_listed(switch)}."
        )
        requested.problems.append(
            Problem("invalid", "optim_args", given, message, line=requested.lines.get("optim_args"))
        )
    read = {key: value for key, value in read.items() if key == "optim" or key not in requested.values}
    requested.values |= read
    line = requested.lines.get("optim")
    requested.lines |= dict.fromkeys(read, line) if line is not None else {}
    shown = ", ".join(f"`{key}: {_plain(value)}`" for key, value in read.items())
    message = f"`optim: {name}` is read as {shown}."
    requested.problems.append(
        Problem("not_needed", "optim", name, message, severity="note", line=line, keys=("optim",))
    )


def _are_assignments(given: object) -> TypeGuard[str]:
    """Whether `optim_args` can be parsed; other values are refused later."""
    try:
        return isinstance(given, str) and assignments(given) == given
    except ValueError:
        return False


def _listed(switch: str) -> str:
    *names, last = (f"`{name}`" for name in known().optimizer_options[switch])
    return f"{', '.join(names)} or {last}"


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
